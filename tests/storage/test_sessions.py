"""Sessions: one connection holds a user's, whatever races, and operators end them."""

import asyncio

import pytest

from storage import keys
from storage.sessions import (
    Expelled,
    Revoked,
    SessionFacts,
    Stale,
)
from storage.tickets import TicketNotFound
from tests.storage.room import REFRESH_TTL_S, TTL_S, Room
from tests.storage.stay import check, owner, rotate, session, token


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
