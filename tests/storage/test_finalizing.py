"""A spent ticket signs its user in: once, whatever races and whatever is repeated."""

import asyncio
from typing import Any

import pytest

from storage import keys
from storage.errors import StoreAway
from storage.events import event_bus
from storage.holders import Entrance, Holder
from storage.queues import Busy, QueueServer
from storage.sessions import (
    NotReady,
    NotYours,
    SignedIn,
)
from storage.tickets import Place, TicketNotFound
from tests.storage.room import DEADLINE_S, MANY, REFRESH_TTL_S, Room
from tests.storage.stay import check, families, owner, session, token

ANNOUNCED = Entrance(trace="trace-1", auto_match='{"difficulty":"easy","level":5}')


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


# Announcing.


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
