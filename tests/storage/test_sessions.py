"""Sessions: one connection holds a user's, whatever races; a refresh token used twice ends its family."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.envelope import Address
from storage import keys
from storage.errors import StoreAway
from storage.events import event_bus
from storage.holders import Entrance, Holder
from storage.queues import Busy, QueueServer
from storage.sessions import (
    MOST_FAMILIES,
    Expelled,
    NextToken,
    NotReady,
    NotYours,
    Reused,
    Revoked,
    Rights,
    SessionFacts,
    SignedIn,
    Stale,
)
from storage.tickets import Place, TicketNotFound
from tests.storage.room import DEADLINE_S, MANY, REFRESH_TTL_S, RIGHTS, TTL_S, Room, open_room


@pytest.fixture
async def room(redis_url: str) -> AsyncIterator[Room]:
    async with open_room(redis_url) as opened:
        yield opened


def token(family: str, number: int) -> NextToken:
    """What is stored of a family's token, made up but the same for the same facts."""
    return NextToken(family, number, f"{family.encode().hex()}{number:04x}")


async def session(room: Room) -> dict[str, str]:
    fields = await room.redis.execute_command("HGETALL", keys.session("ada"))
    return {name.decode(): value.decode() for name, value in fields.items()}


async def families(room: Room) -> list[str]:
    names = await room.redis.execute_command("HKEYS", keys.refresh_tokens("ada"))
    return sorted(name.decode().removeprefix("family:") for name in names if name.startswith(b"family:"))


async def owner(room: Room) -> Address | None:
    fields = await session(room)
    return Address(fields["serverId"], int(fields["connectionId"])) if "serverId" in fields else None


async def rotate(room: Room, family: str, number: int, rights: Rights = RIGHTS) -> tuple[int, int]:
    next_hash = token(family, number + 1).hash
    return await room.sessions.rotate(
        "ada", token(family, number), next_hash, await room.now_ms(), room.record(), rights
    )


async def check(room: Room, token: NextToken) -> None:
    await room.sessions.check("ada", token, room.record())


# Finalizing.


async def test_a_spent_ticket_signs_its_user_in(room: Room) -> None:
    asker = room.asker(7, "SOCK002")
    signed_in = await room.sign_in("ada", asker, fresh=token("one", 1))
    assert (signed_in.family, signed_in.number, signed_in.kicked) == ("one", 1, None)
    assert abs(signed_in.issued_ms - await room.now_ms()) < 30_000
    fields = await session(room)
    assert fields.pop("last_login").endswith("Z")
    assert fields == {
        "serverId": "SOCK002", "connectionId": "7", "takenAt": str(asker.sent_ms), "epoch": "1",
        "login_count": "1", "role": "NORMAL", "permissions": "", "family": "one", "risk_score": "0.0",
        "trace": "",
    }  # fmt: skip
    stored = await room.redis.execute_command("HGETALL", keys.refresh_tokens("ada"))
    assert stored[b"token"] == token("one", 1).hash.encode()
    assert stored[b"role"] == b"NORMAL"
    assert stored[b"expires_at"].endswith(b"Z")
    seen = await room.look()
    for name in (keys.session("ada"), keys.refresh_tokens("ada")):
        assert 0 < seen.left_ms[name] <= REFRESH_TTL_S * 1000
    assert await room.sessions.newest("ada", "one") == 1
    assert await room.sessions.newest("ada", "two") is None


async def test_only_a_ready_ticket_is_spent_by_its_client_before_its_deadline(room: Room) -> None:
    ticket = await room.login("ada")
    with pytest.raises(NotReady):
        await room.finalize(ticket, "ada")
    await room.admit()
    again = await room.login("ada")
    with pytest.raises(NotYours):
        await room.finalize(ticket, "ada")
    await room.pass_time(DEADLINE_S + 1)
    with pytest.raises(TicketNotFound):
        await room.finalize(again, "ada")
    seen = await room.look()
    assert (seen.status(again.tid), seen.count("consumed")) == ("READY", 0)
    assert keys.session("ada") not in seen.left_ms


async def test_a_hundred_racing_finalizes_of_one_ticket_give_one_pair_of_tokens(room: Room) -> None:
    ticket = await room.login("ada")
    await room.admit()
    askers = [room.asker() for _ in range(100)]
    results = await asyncio.gather(
        *(room.finalize(ticket, "ada", asker) for asker in askers), return_exceptions=True
    )
    (won,) = [result for result in results if isinstance(result, SignedIn)]
    assert sum(isinstance(result, TicketNotFound) for result in results) == 99
    assert await families(room) == [won.family]
    assert await owner(room) == askers[results.index(won)].address
    assert (await room.tickets.ledger())["consumed"] == 1


async def test_a_later_sign_in_takes_the_session_and_counts_its_epoch(room: Room) -> None:
    first, second = room.asker(), room.asker()
    await room.sign_in("ada", first)
    assert (await room.sign_in("ada", second)).kicked == first.address
    # The same connection again: whoever was to kick the first one out may have died.
    assert (await room.sign_in("ada", room.asker(second.address.connection_id))).kicked == first.address
    fields = await session(room)
    assert (fields["epoch"], fields["login_count"]) == ("3", "3")
    assert await owner(room) == second.address
    await room.sign_in("eve", room.asker())
    assert await owner(room) == second.address


# Finalizing again.


async def test_a_repeated_finalize_is_answered_the_same_and_changes_nothing(room: Room) -> None:
    before = room.asker()
    await room.sign_in("ada", before)
    asker, record = room.asker(), room.record()
    ticket = await room.login("ada", asker)
    await room.admit()
    first = await room.finalize(ticket, "ada", asker, record=record)
    seen = await room.look(), await session(room), await families(room)
    assert first.kicked == before.address
    assert await room.finalize(ticket, "ada", asker, record=record) == first
    again = await room.look(), await session(room), await families(room)
    assert (again[0].tickets, again[0].stats, *again[1:]) == (seen[0].tickets, seen[0].stats, *seen[1:])


async def test_a_finalize_repeated_from_another_connection_brings_the_session_there(room: Room) -> None:
    """Its client lost the connection before it got the tokens; who takes over next must kick the new one."""
    lost, record = room.asker(), room.record()
    ticket = await room.login("ada", lost)
    await room.admit()
    first = await room.finalize(ticket, "ada", lost, record=record)
    new = room.asker(server_id="SOCK002")
    again = await room.finalize(ticket, "ada", new, record=record)
    assert (again.family, again.number, again.issued_ms) == (first.family, first.number, first.issued_ms)
    assert again.kicked == lost.address
    assert await owner(room) == new.address
    later = room.asker()
    assert (await room.sessions.resume("ada", first.family, later))[0] == new.address


@pytest.mark.parametrize("later", ["sign-in", "resume", "logout"])
async def test_a_repeated_finalize_takes_no_session_from_a_later_request(room: Room, later: str) -> None:
    first, ghost, record = room.asker(), room.asker(), room.record()
    ticket = await room.login("ada", first)
    await room.admit()
    signed_in = await room.finalize(ticket, "ada", first, record=record)
    if later == "sign-in":
        await room.sign_in("ada")
    elif later == "resume":
        await room.sessions.resume("ada", signed_in.family, room.asker())
    else:
        await room.sessions.revoke("ada", signed_in.family, room.record())
    holds = await session(room)
    assert (await room.finalize(ticket, "ada", ghost, record=record)).kicked == ghost.address
    assert await session(room) == holds


async def test_a_late_finalize_takes_no_session_from_a_later_request(room: Room) -> None:
    """Its ticket is spent and its tokens are good; its connection is the one that lost."""
    await room.sign_in("ada", fresh=token("one", 1))
    ticket = await room.login("ada")
    await room.pass_time(10.1)
    await room.admit()
    late, later = room.asker(), room.asker()
    await room.sessions.resume("ada", "one", later)

    signed_in = await room.finalize(ticket, "ada", late, fresh=token("two", 1))

    assert signed_in.kicked == late.address
    assert await owner(room) == later.address
    assert (await session(room))["family"] == "one"
    await check(room, token("two", 1))
    assert (await room.sessions.resume("ada", "two", room.asker()))[0] == later.address


async def test_a_late_finalize_takes_a_session_that_nobody_holds(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    ticket = await room.login("ada")
    await room.pass_time(10.1)
    await room.admit()
    late = room.asker()
    await room.sessions.resume("ada", "one", room.asker())
    await room.sessions.revoke("ada", "one", room.record())

    assert (await room.finalize(ticket, "ada", late)).kicked is None
    assert await owner(room) == late.address


# Families.


async def test_a_login_by_refresh_token_goes_on_with_its_family(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    signed_in = await room.sign_in("ada", going_on=token("one", 2), fresh=token("two", 1))
    assert (signed_in.family, signed_in.number) == ("one", 2)
    assert await families(room) == ["one"]
    await check(room, token("one", 2))
    with pytest.raises(Reused):
        await check(room, token("one", 1))


async def test_a_login_whose_family_went_on_or_ended_meanwhile_begins_another(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await rotate(room, "one", 1)
    signed_in = await room.sign_in("ada", going_on=token("one", 2), fresh=token("two", 1))
    assert (signed_in.family, signed_in.number) == ("two", 1)
    await room.sessions.revoke("ada", "one", room.record())
    signed_in = await room.sign_in("ada", going_on=token("one", 3), fresh=token("three", 1))
    assert (signed_in.family, signed_in.number) == ("three", 1)


async def test_a_user_has_five_families_and_the_oldest_goes_first(room: Room) -> None:
    for number in range(MOST_FAMILIES):
        await room.sign_in("ada", fresh=token(f"family-{number}", 1))
    await rotate(room, "family-0", 1)
    await room.sign_in("ada", fresh=token("family-5", 1))
    assert await families(room) == [f"family-{number}" for number in (0, 2, 3, 4, 5)]
    with pytest.raises(Revoked):
        await check(room, token("family-1", 1))


async def test_a_new_family_stays_also_when_its_workers_clock_is_behind(room: Room) -> None:
    for number in range(MOST_FAMILIES):
        await room.sign_in("ada", fresh=token(f"family-{number}", 1))
    tokens = keys.refresh_tokens("ada")
    for name in await families(room):
        ahead = await room.now_ms() + int(REFRESH_TTL_S * 1000) + 60_000
        await room.redis.hset(tokens, f"family:{name}", f"1|{token(name, 1).hash}|{ahead}")
    await room.sign_in("ada", fresh=token("new", 1))
    assert "new" in await families(room)
    assert len(await families(room)) == MOST_FAMILIES


async def test_families_that_are_over_are_cleared_away(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await room.pass_time(REFRESH_TTL_S / 2)
    await room.sign_in("ada", fresh=token("two", 1))
    await room.pass_time(REFRESH_TTL_S / 2 + 60)
    for work in (
        check(room, token("one", 1)),
        room.sessions.resume("ada", "one", room.asker()),
        rotate(room, "one", 1),
    ):
        with pytest.raises(Revoked):
            await work
    await room.sign_in("ada", fresh=token("three", 1))
    assert await families(room) == ["three", "two"]
    await room.pass_time(REFRESH_TTL_S + 60)
    assert (await room.look()).left_ms.keys().isdisjoint({keys.refresh_tokens("ada"), keys.session("ada")})


# Exchanging tokens.


async def test_a_token_is_exchanged_once_and_a_repeat_gets_the_same(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    now_ms, record = await room.now_ms(), room.record()
    call = ("ada", token("one", 1), token("one", 2).hash, now_ms, record, RIGHTS)
    first = await room.sessions.rotate(*call)
    assert first[0] == 2
    assert abs(first[1] - now_ms) < 30_000
    assert await room.sessions.rotate(*call) == first
    await check(room, token("one", 2))
    assert (await rotate(room, "one", 2))[0] == 3
    assert await room.sessions.newest("ada", "one") == 3


async def test_a_tokens_rights_are_those_of_its_making(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await rotate(room, "one", 1, Rights("VIP", "queue_priority"))
    for name in (keys.session("ada"), keys.refresh_tokens("ada")):
        fields = await room.redis.execute_command("HMGET", name, "role", "permissions")
        assert fields == [b"VIP", b"queue_priority"]
    await room.redis.delete(keys.session("ada"))
    await rotate(room, "one", 2)
    assert not await room.redis.exists(keys.session("ada"))


async def test_a_hundred_racing_exchanges_of_one_token_end_its_family(room: Room) -> None:
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    results = await asyncio.gather(*(rotate(room, "one", 1) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert [result.signed_out for result in results if isinstance(result, Reused)] == [asker.address]
    assert sum(isinstance(result, Revoked) for result in results) == 98
    assert await families(room) == []


@pytest.mark.parametrize("how", ["check", "rotate"])
async def test_a_token_used_twice_ends_its_family_and_signs_its_session_out(room: Room, how: str) -> None:
    await room.sign_in("ada", fresh=token("other", 1))
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    await rotate(room, "one", 1)
    with pytest.raises(Reused) as reused:
        await (check(room, token("one", 1)) if how == "check" else rotate(room, "one", 1))
    assert reused.value.signed_out == asker.address
    assert await owner(room) is None
    assert await families(room) == ["other"]
    with pytest.raises(Revoked):
        await check(room, token("one", 2))
    with pytest.raises(Revoked):
        await room.sessions.resume("ada", "one", room.asker())
    assert (await room.sessions.resume("ada", "other", room.asker()))[0] is None


async def test_a_reuse_that_is_delivered_twice_is_answered_twice(room: Room) -> None:
    """The worker that revoked the family may have died before it could sign the connection out."""
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    await rotate(room, "one", 1)
    record = room.record()
    for _ in range(2):
        with pytest.raises(Reused) as reused:
            await room.sessions.rotate("ada", token("one", 1), "ab", await room.now_ms(), record, RIGHTS)
        assert reused.value.signed_out == asker.address


async def test_a_reuse_in_a_login_that_is_delivered_twice_is_answered_twice(room: Room) -> None:
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    await rotate(room, "one", 1)
    record = room.record()
    for _ in range(2):
        with pytest.raises(Reused) as reused:
            await room.sessions.check("ada", token("one", 1), record)
        assert reused.value.signed_out == asker.address


async def test_a_login_that_is_delivered_again_after_its_family_went_on_is_no_reuse(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    record = room.record()
    await room.sessions.check("ada", token("one", 1), record)
    await room.tickets.issue(room.place(), "ada", room.asker(), Entrance("one"), 100, record)
    await rotate(room, "one", 1)

    await room.sessions.check("ada", token("one", 1), record)

    assert await families(room) == ["one"]
    with pytest.raises(Reused):
        await check(room, token("one", 1))


async def test_a_reuse_leaves_a_session_of_another_family(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("two", 1))
    with pytest.raises(Reused) as reused:
        await check(room, NextToken("one", 1, "ab"))
    assert reused.value.signed_out is None
    assert await owner(room) == asker.address


async def test_a_session_lives_as_long_as_its_tokens_are_exchanged(room: Room) -> None:
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    for number in range(1, 5):
        await room.pass_time(REFRESH_TTL_S * 0.7)
        assert (await rotate(room, "one", number))[0] == number + 1
    assert (await room.sessions.resume("ada", "one", room.asker()))[0] == asker.address


# Coming back and going.


async def test_who_resumes_takes_the_session_unless_a_later_request_has_it(room: Room) -> None:
    first, earlier, later = room.asker(), room.asker(), room.asker()
    await room.sign_in("ada", first, fresh=token("one", 1))
    assert (await room.sessions.resume("ada", "one", later))[0] == first.address
    assert (await room.sessions.resume("ada", "one", later))[0] == first.address  # when it is delivered again
    with pytest.raises(Stale):
        await room.sessions.resume("ada", "one", earlier)
    assert await owner(room) == later.address
    with pytest.raises(Revoked):
        await room.sessions.resume("ada", "unknown", room.asker())
    with pytest.raises(Revoked):
        await room.sessions.resume("eve", "one", room.asker())


async def test_of_a_hundred_racing_resumes_one_holds_the_session_and_the_others_know(room: Room) -> None:
    first = room.asker()
    await room.sign_in("ada", first, fresh=token("one", 1))
    askers = [room.asker() for _ in range(100)]
    results = await asyncio.gather(
        *(room.sessions.resume("ada", "one", asker) for asker in askers), return_exceptions=True
    )
    lost = {result[0] for result in results if not isinstance(result, BaseException)}
    lost |= {
        asker.address for asker, result in zip(askers, results, strict=True) if isinstance(result, Stale)
    }
    holds = await owner(room)
    assert holds == askers[-1].address
    assert lost == {first.address, *(asker.address for asker in askers)} - {holds}


async def test_a_session_that_redis_lost_is_made_again_and_does_not_stay_for_ever(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await room.redis.delete(keys.session("ada"))
    asker = room.asker()
    assert (await room.sessions.resume("ada", "one", asker))[0] is None
    assert await owner(room) == asker.address
    assert 0 < (await room.look()).left_ms[keys.session("ada")] <= REFRESH_TTL_S * 1000


async def test_logging_out_ends_a_family_and_signs_out_the_connection_it_signed_in(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    asker, record = room.asker(), room.record()
    await room.sign_in("ada", asker, fresh=token("two", 1))
    assert await room.sessions.revoke("ada", "one", room.record()) is None
    assert await owner(room) == asker.address
    for _ in range(2):
        assert await room.sessions.revoke("ada", "two", record) == asker.address
    assert await owner(room) is None
    with pytest.raises(Revoked):
        await room.sessions.revoke("ada", "two", room.record())
    assert (await room.sign_in("ada")).kicked is None


async def test_a_spent_tickets_user_can_come_again(room: Room) -> None:
    asker = room.asker()
    first = await room.login("ada", asker)
    await room.admit()
    await room.finalize(first, "ada", asker)
    second = await room.login("ada", asker)
    assert second.tid != first.tid
    seen = await room.look()
    assert seen.holders == {"ada": second.tid}
    assert 0 < seen.left_ms[keys.ticket(first.tid)] <= TTL_S * 1000


# Operators.


async def test_who_is_expelled_has_no_session_no_tokens_and_no_ticket(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    asker, waiter = room.asker(), room.asker()
    await room.sign_in("ada", asker, fresh=token("two", 1))
    await room.sign_in("eve", fresh=token("eves", 1))
    ticket = await room.login("ada", waiter)

    assert await room.sessions.expel("ada") == Expelled(asker.address, waiter.address, 2)

    seen = await room.look()
    assert (seen.status(ticket.tid), seen.waiting, seen.count("cancelled")) == ("CANCELLED", [], 1)
    assert {"ada", keys.refresh_tokens("ada")}.isdisjoint({*seen.holders, *seen.left_ms})
    assert await owner(room) is None
    assert (await session(room))["login_count"] == "2"
    for work in (
        check(room, token("two", 1)),
        rotate(room, "two", 1),
        room.sessions.resume("ada", "two", room.asker()),
    ):
        with pytest.raises(Revoked):
            await work
    with pytest.raises(TicketNotFound):
        await room.finalize(ticket, "ada")
    await room.sessions.check("eve", token("eves", 1), room.record())


async def test_a_ready_ticket_of_who_is_expelled_gives_its_place_to_the_next(room: Room) -> None:
    ticket = await room.login("ada")
    assert await room.admit_ids() == [ticket.tid]
    following = await room.login("eve")
    await room.sessions.expel("ada")
    ledger = await room.tickets.ledger()
    assert (ledger["issued"], ledger["ready"], ledger["cancelled"], ledger["waiting"]) == (2, 0, 1, 1)
    assert await room.admit_ids() == [following.tid]


async def test_to_expel_again_tells_whom_to_close_again(room: Room) -> None:
    """Whoever was to do it may have died."""
    asker = room.asker()
    await room.sign_in("ada", asker)
    for _ in range(2):
        assert (await room.sessions.expel("ada")).signed_in == asker.address
    assert await room.sessions.expel("nobody") == Expelled(None, None, 0)


async def test_who_was_expelled_may_come_back_and_kicks_nobody_out(room: Room) -> None:
    expelled, back = room.asker(), room.asker()
    await room.sign_in("ada", expelled)
    await room.sessions.expel("ada")
    signed_in = await room.sign_in("ada", back, fresh=token("new", 1))
    assert signed_in.kicked is None
    again = room.asker(back.address.connection_id)
    assert (await room.sessions.resume("ada", "new", again))[0] is None
    assert await owner(room) == back.address


async def test_a_repeated_finalize_of_who_was_expelled_signs_nobody_in(room: Room) -> None:
    asker, record = room.asker(), room.record()
    ticket = await room.login("ada", asker)
    await room.admit()
    await room.finalize(ticket, "ada", asker, record=record)
    await room.sessions.expel("ada")
    elsewhere = room.asker()
    assert (await room.finalize(ticket, "ada", elsewhere, record=record)).kicked == elsewhere.address
    assert await owner(room) is None


async def test_the_facts_of_a_stay(room: Room) -> None:
    assert await room.sessions.facts("ada") == SessionFacts(None, None, 0, None, 0)
    await room.sign_in("ada", room.asker(server_id="SOCK002"))
    await room.sign_in("ada", room.asker(server_id="SOCK003"))
    facts = await room.sessions.facts("ada")
    assert (facts.node, facts.login_count, facts.risk_score, facts.devices) == ("SOCK003", 2, 0.0, 2)
    assert (facts.last_login or "").endswith("Z")


ANNOUNCED = Entrance(trace="trace-1", auto_match='{"difficulty":"easy","level":5}')


async def ready(room: Room) -> Place:
    """A READY ticket of a login that is to be announced, and a bus that somebody hears."""
    await QueueServer(room.redis).create(event_bus(), "matching")
    ticket = await room.tickets.issue(room.place(), "ada", room.asker(), ANNOUNCED, MANY, room.record())
    await room.pass_time(10.1)
    assert await room.admit_ids() == [ticket.tid]
    return ticket


async def on_the_bus(room: Room) -> list[bytes]:
    entries: Any = await room.redis.xrange(keys.EVENT_BUS)
    return [fields[b"m"] for _, fields in entries]


async def test_what_a_login_said_is_kept_until_its_ticket_is_spent(room: Room) -> None:
    ticket = await ready(room)
    holder = await room.tickets.holder(ticket.tid)
    assert holder == Holder("ada", ANNOUNCED)
    newer = Entrance("family", trace="trace-2")
    place = await room.tickets.issue(room.place(), "ada", room.asker(), newer, MANY, room.record())
    assert await room.tickets.holder(ticket.tid) == Holder("ada", newer), "the newest login counts"
    await room.finalize(place, "ada")
    assert (await session(room))["trace"] == "trace-2"
    assert (await room.sessions.resume("ada", (await session(room))["family"], room.asker()))[1] == "trace-2"


async def test_a_sign_in_is_announced_once_in_the_same_step(room: Room) -> None:
    ticket, record = await ready(room), room.record()
    for _ in range(2):
        await room.finalize(ticket, "ada", record=record, announcement=b"ada has come in")
    assert await on_the_bus(room) == [b"ada has come in"]
    statistics = (await QueueServer(room.redis).statistics([keys.EVENT_BUS]))[0]
    assert statistics.length == 1


async def test_a_sign_in_that_cannot_be_announced_has_not_happened(room: Room) -> None:
    ticket = await ready(room)
    await room.redis.hset(keys.queue_meta(keys.EVENT_BUS), "maxSize", 0)
    with pytest.raises(Busy):
        await room.finalize(ticket, "ada", announcement=b"ada has come in")
    await QueueServer(room.redis).delete(keys.EVENT_BUS)
    with pytest.raises(StoreAway):
        await room.finalize(ticket, "ada", announcement=b"ada has come in")
    assert (await room.look()).status(ticket.tid) == "READY"
    await QueueServer(room.redis).create(event_bus(), group="")
    await room.finalize(ticket, "ada", announcement=b"ada has come in")
    assert await on_the_bus(room) == [], "nobody has ever listened"
