"""The waiting room from a login to the end of a ticket: who has it, who is told what, and what is counted."""

import asyncio
from collections import Counter

import pytest

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage import keys
from storage.holders import Entrance, Holder
from storage.tickets import Ended, Place, RoomFull, Survey, TakenOver, TicketNotFound, Tickets
from tests.storage.room import DEADLINE_S, MANY, TTL_S, Room, open_room


def ids(places: list[Place]) -> list[str]:
    return [place.tid for place in places]


def positions(walk: Survey) -> list[int]:
    return [update.position for update in walk.updates]


# Logging in.


async def test_a_full_room_takes_nobody_more_but_keeps_whom_it_has(room: Room) -> None:
    first, *_ = await room.crowd(3)
    with pytest.raises(RoomFull) as full:
        await room.login("late", most_waiting=3)
    assert full.value.total_waiting == 3
    again = await room.login("user-0", most_waiting=3)
    assert (again.tid, again.position) == (first.tid, 1)
    await room.admit(1)
    assert (await room.login("late", most_waiting=3)).position == 3


async def test_who_was_turned_away_can_come_with_the_same_key_again(room: Room) -> None:
    record, asker = room.record(), room.asker()
    with pytest.raises(RoomFull):
        await room.tickets.issue(room.place(), "ada", asker, Entrance(), 0, record)
    assert (await room.tickets.issue(room.place(), "ada", asker, Entrance(), 1, record)).position == 1


async def test_of_a_hundred_racing_logins_of_one_user_one_owns_and_ninety_nine_are_kicked(room: Room) -> None:
    askers = [room.asker() for _ in range(100)]
    places = await asyncio.gather(*(room.login("ada", asker) for asker in askers))
    assert len({place.tid for place in places}) == 1
    kicked = {place.kicked for place in places} - {None}
    assert len(kicked) == 99
    assert kicked == {asker.address for asker in askers[:-1]}
    seen = await room.look()
    (ticket,) = seen.tickets.values()
    assert ticket["owner"] == str(askers[-1].address)
    (good,) = [place for place in places if place.client_id == ticket["clientId"]]
    assert seen.clients[good.tid] == {good.client_id}
    assert (await room.tickets.stream(good.tid, good.client_id, askers[-1])).kicked is None


async def test_a_login_asked_for_earlier_is_kicked_itself(room: Room) -> None:
    earlier, later = room.asker(), room.asker()
    place = await room.login("ada", later)
    ghost = await room.login("ada", earlier)
    assert (ghost.tid, ghost.kicked) == (place.tid, earlier.address)
    with pytest.raises(TakenOver):
        await room.tickets.stream(ghost.tid, ghost.client_id, earlier)
    with pytest.raises(TakenOver):
        await room.tickets.stream(place.tid, place.client_id, earlier)
    assert (await room.tickets.stream(place.tid, place.client_id, later)).kicked is None


async def test_a_login_takes_the_events_away_and_a_stream_gets_them(room: Room) -> None:
    first, second = room.asker(), room.asker()
    place = await room.login("ada", first)
    await room.tickets.stream(place.tid, place.client_id, first)
    again = await room.login("ada", second)
    assert again.kicked == first.address
    assert [admitted.owner for admitted in (await room.admit()).admitted] == [None]
    got = await room.tickets.stream(again.tid, again.client_id, room.asker())
    assert (got.status, got.position, got.kicked) == (TicketStatus.READY, 0, second.address)
    assert DEADLINE_S - 30 < got.deadline_s <= DEADLINE_S


async def test_order_is_that_of_arrival_also_when_the_clock_goes_back(room: Room) -> None:
    places = [await room.login("early")]
    await room.pass_time(-60)
    places += await room.crowd(20)
    assert [place.position for place in places] == list(range(1, 22))
    assert await room.admit_ids(7) + await room.admit_ids(14) == ids(places)


async def test_a_repeat_in_a_crowded_room_is_answered_the_same(room: Room) -> None:
    crowd = {f"tid_{number}": number for number in range(100_000)}
    await room.redis.zadd(keys.PORTAL_WAITING, crowd)
    asker, record = room.asker(), room.record()
    place = await room.tickets.issue(room.place(), "ada", asker, Entrance(), 200_000, record)
    assert (place.position, place.total_waiting) == (100_001, 100_001)
    await room.login("eve", most_waiting=200_000)
    assert await room.tickets.issue(room.place(), "ada", asker, Entrance(), 200_000, record) == place
    streamed = await room.tickets.stream(place.tid, place.client_id, asker)
    assert (streamed.position, streamed.total_waiting) == (100_001, 100_002)


# Being away.


async def test_a_place_is_kept_from_when_its_player_was_last_seen(room: Room) -> None:
    """900 s run from lastSeen (not from when it was issued)."""
    asker = room.asker()
    place = await room.login("ada", asker)
    await room.pass_time(TTL_S - 60)
    await room.tickets.stream(place.tid, place.client_id, asker)
    await room.pass_time(TTL_S - 60)
    assert await room.tickets.touch([(place.tid, asker.address)]) == 1
    await room.pass_time(TTL_S - 60)
    place = await room.login("ada", asker)
    await room.pass_time(TTL_S - 60)
    survey = await room.tickets.survey(0, MANY, 0, 0)
    assert (survey.total_waiting, survey.expired) == (1, [])
    assert (await room.login("ada", asker)).tid == place.tid
    await room.pass_time(TTL_S + 1)
    survey = await room.tickets.survey(0, MANY, 0, 0)
    assert survey.expired == [Ended(place.tid, None, "ABANDONED")]
    assert (await room.login("ada")).tid != place.tid


async def test_an_abandoned_ticket_cannot_come_back_beside_its_users_next(room: Room) -> None:
    first, second = room.asker(), room.asker()
    old = await room.login("ada", first)
    await room.tickets.stream(old.tid, old.client_id, first)
    await room.pass_time(TTL_S + 1)
    new = await room.login("ada", second)
    assert (new.tid != old.tid, new.position) == (True, 2)
    assert await room.tickets.touch([(old.tid, first.address)]) == 0
    with pytest.raises(TicketNotFound):
        await room.tickets.stream(old.tid, old.client_id, first)
    with pytest.raises(TicketNotFound):
        await room.tickets.cancel(old.tid, old.client_id, "ada", room.record())
    outcome = await room.admit()
    assert outcome.expired == [Ended(old.tid, first.address, "ABANDONED")]
    assert [admitted.tid for admitted in outcome.admitted] == [new.tid]
    seen = await room.look()
    assert (seen.holders, seen.count("expired"), seen.count("issued")) == ({"ada": new.tid}, 1, 2)


async def test_who_becomes_ready_while_away_has_until_the_deadline(room: Room) -> None:
    place = await room.login("ada")
    await room.pass_time(TTL_S - 10)
    assert await room.admit_ids() == [place.tid]
    await room.pass_time(DEADLINE_S - 10)
    again = await room.login("ada")
    assert (again.tid, again.status) == (place.tid, TicketStatus.READY)
    await room.finalize(again, "ada")


async def test_a_place_kept_for_less_than_the_deadline_shortens_no_deadline(redis_url: str) -> None:
    async with open_room(redis_url, ttl_s=5) as room:
        asker = room.asker()
        place = await room.login("ada", asker)
        assert await room.admit_ids() == [place.tid]
        place = await room.login("ada", asker)
        await room.tickets.stream(place.tid, place.client_id, asker)
        assert await room.tickets.touch([(place.tid, asker.address)]) == 1
        await room.pass_time(DEADLINE_S - 10)
        await room.finalize(place, "ada")


@pytest.mark.parametrize("sweeper", ["survey", "admit"])
async def test_a_ticket_whose_hash_is_lost_is_cleared_away(room: Room, sweeper: str) -> None:
    lost, kept = await room.crowd(2)
    await room.redis.delete(keys.ticket(lost.tid))
    if sweeper == "survey":
        expired = (await room.tickets.survey(0, MANY, 0, 0)).expired
    else:
        expired = (await room.admit()).expired
    assert expired == [Ended(lost.tid, None, "ABANDONED")]
    seen = await room.look()
    assert [*seen.waiting, *seen.ready] == [kept.tid]
    assert (seen.count("issued"), seen.count("expired")) == (2, 1)
    assert seen.left_ms[keys.ticket(lost.tid)] > 0


async def test_a_ready_ticket_whose_hash_is_lost_is_a_no_show(room: Room) -> None:
    (lost,) = await room.crowd(1)
    await room.admit()
    await room.redis.delete(keys.ticket(lost.tid))
    await room.pass_time(DEADLINE_S + 1)
    assert (await room.admit()).expired == [Ended(lost.tid, None, "FINALIZE_DEADLINE")]
    assert (await room.tickets.ledger())["expired"] == 1


# What players are told.


async def test_the_survey_tells_true_places_also_behind_the_abandoned(room: Room) -> None:
    places = [await room.login(f"gone-{number}") for number in range(3)]
    await room.pass_time(TTL_S / 2 + 1)
    staying = await room.crowd(5, streaming=True)
    await room.pass_time(TTL_S / 2 + 1)
    walk = await room.tickets.survey(1, 4, 0, 0)
    assert [ended.tid for ended in walk.expired] == ids(places[1:])
    assert positions(walk) == [2, 3]
    seen = await room.look()
    assert seen.waiting == [places[0].tid, *ids(staying)]
    walk = await room.tickets.survey(0, MANY, 0, 0)
    assert positions(walk) == [1, 2, 3, 4, 5]


async def test_a_place_is_told_when_it_changed_or_long_ago_and_never_too_often(room: Room) -> None:
    async def told(after_s: float) -> list[int]:
        await room.pass_time(after_s)
        return positions(await room.tickets.survey(0, MANY, 20, 70))

    places = await room.crowd(4, streaming=True)
    assert await told(0) == []
    assert await told(30) == []
    await room.tickets.cancel(places[1].tid, places[1].client_id, "user-1", room.record())
    assert await told(0) == [2, 3]
    assert await told(10) == []
    assert await told(40) == [1]
    assert await told(80) == [1, 2, 3]


async def test_a_walk_that_goes_on_meets_everybody_in_each_round_however_fast_they_move(room: Room) -> None:
    crowd = ids(await room.crowd(60, streaming=True))
    owners = {fields["owner"]: tid for tid, fields in (await room.look()).tickets.items()}
    met_at = dict.fromkeys(crowd, 0)
    for step in range(1, 25):
        walk = await room.tickets.survey(None, 4, 0, 0)
        for update in walk.updates:
            met_at[owners[str(update.owner)]] = step
        waiting = (await room.look()).waiting
        assert [update.position for update in walk.updates] == [
            waiting.index(owners[str(update.owner)]) + 1 for update in walk.updates
        ]
        assert max(step - met_at[tid] for tid in waiting) < 15, "of 60 are 4 met with each step"
        await room.admit(2)


async def test_a_walk_begins_anew_at_the_head_when_it_has_come_to_the_end(room: Room) -> None:
    async def told(count: int) -> list[int]:
        return positions(await room.tickets.survey(None, count, 0, 0))

    assert await told(2) == []
    await room.crowd(5, streaming=True)
    assert [await told(2) for _ in range(4)] == [[1, 2], [3, 4], [5], [1, 2]]
    assert await told(3) == [3, 4, 5]
    await room.redis.delete(keys.PORTAL_WAITING)
    assert [await told(1), await told(1)] == [[], []]


async def test_who_was_not_told_is_found_until_the_ticket_is_over(room: Room) -> None:
    told, taken, cancelled, spent, waits = await room.crowd(5, streaming=True)
    quiet = await room.login("quiet")
    assert len(await room.admit_ids()) == 6
    assert await room.tickets.untold(10, MANY) == []
    await room.pass_time(11)
    await room.tickets.told([told.tid])
    await room.login("user-1")
    await room.tickets.cancel(cancelled.tid, cancelled.client_id, "user-2", room.record())
    await room.finalize(spent, "user-3")
    (found,) = await room.tickets.untold(10, MANY)
    assert found.tid == waits.tid
    assert 0 < found.deadline_s <= DEADLINE_S - 11
    assert (await room.look()).untold.keys() == {waits.tid}
    await room.pass_time(DEADLINE_S)
    assert {ended.tid for ended in (await room.admit()).expired} == {*ids([told, taken, waits, quiet])}
    assert await room.tickets.untold(0, MANY) == []


async def test_however_many_were_told_at_once(room: Room) -> None:
    tids = [f"tid_{number}" for number in range(10_000)]
    await room.redis.zadd(keys.PORTAL_UNTOLD, dict.fromkeys(tids, 1))
    await room.tickets.told(tids)
    assert not await room.redis.exists(keys.PORTAL_UNTOLD)
    await room.tickets.told([])


async def test_a_node_keeps_only_places_that_its_connections_own(room: Room) -> None:
    asker = room.asker()
    place = await room.login("ada", asker)
    stranger = Address("SOCK002", asker.address.connection_id)
    pairs = [(place.tid, stranger), ("tid_unknown", asker.address), (place.tid, asker.address)]
    assert await room.tickets.touch(pairs) == 1
    assert await room.tickets.touch([]) == 0
    await room.tickets.cancel(place.tid, place.client_id, "ada", room.record())
    assert await room.tickets.touch(pairs) == 0


# What is counted.


async def test_the_ledger_and_the_averages(room: Room) -> None:
    assert await room.tickets.ledger() == {
        "waiting": 0, "ready": 0, "issued": 0, "consumed": 0, "cancelled": 0, "expired": 0,
        "totalRate": 6_000_000.0, "avgWaitSec": 0.0, "estimateErrorSec": 0.0, "outflow": 1.0,
    }  # fmt: skip
    first, second, third, *_ = await room.crowd(6)
    await room.pass_time(50)
    await room.admit(3)
    await room.finalize(first, "user-0")
    await room.tickets.cancel(second.tid, second.client_id, "user-1", room.record())
    await room.tickets.cancel(third.tid, third.client_id, "user-2", room.record())
    await room.admit(1)
    ledger = await room.tickets.ledger()
    counts = {
        name: ledger[name] for name in ("waiting", "ready", "issued", "consumed", "cancelled", "expired")
    }
    assert counts == {"waiting": 2, "ready": 1, "issued": 6, "consumed": 1, "cancelled": 2, "expired": 0}
    assert 1 < ledger["avgWaitSec"] < 30  # it nears 50 s by a fiftieth with each
    stats = (await room.look()).stats
    assert (stats["processedToday"], stats["totalWaiting"]) == ("4", "2")
    await room.redis.hset(keys.PORTAL_STATS, "processedOn", "2024-12-18")
    await room.admit(2)
    assert (await room.look()).stats["processedToday"] == "2"


async def test_whose_a_ticket_is(room: Room) -> None:
    place = await room.login("ada", family="family-1")
    assert await room.tickets.holder(place.tid) == Holder("ada", Entrance("family-1"))
    assert await room.tickets.holder("tid_unknown") is None
    await room.login("ada", family="family-2")
    assert await room.tickets.holder(place.tid) == Holder("ada", Entrance("family-2"))


async def test_one_worker_surveys_at_a_time(room: Room) -> None:
    assert await room.tickets.lead_survey("one", 3.0)
    assert not await room.tickets.lead_survey("two", 3.0)
    await room.pass_time(2)
    assert await room.tickets.lead_survey("one", 3.0)
    await room.pass_time(2)
    assert not await room.tickets.lead_survey("two", 3.0)
    await room.pass_time(4)
    assert await room.tickets.lead_survey("two", 3.0)
    assert not await room.tickets.lead_survey("one", 3.0)


async def test_a_rate_is_set_for_all_pods(room: Room) -> None:
    assert await Tickets(room.redis, TTL_S).total_rate() == 6_000_000
    await room.settings.configure(200, 3)
    assert await room.tickets.total_rate() == 600
    assert await room.redis.hgetall(keys.PORTAL_CONFIG) == {
        b"admitRate": b"200", b"podCount": b"3", b"waitFactor": b"2.0", b"totalRate": b"600"
    }  # fmt: skip
    await room.redis.delete(keys.PORTAL_CONFIG)
    assert await room.tickets.total_rate() == 0


async def test_finished_tickets_can_be_looked_at_for_a_while(room: Room) -> None:
    spent, cancelled, expired = await room.crowd(3)
    await room.admit()
    await room.finalize(spent, "user-0")
    await room.tickets.cancel(cancelled.tid, cancelled.client_id, "user-1", room.record())
    await room.pass_time(DEADLINE_S + 1)
    await room.admit()
    seen = await room.look()
    assert [seen.status(tid) for tid in ids([spent, cancelled, expired])] == [
        "CONSUMED",
        "CANCELLED",
        "EXPIRED",
    ]
    assert Counter(name.partition(":")[0] for name in seen.left_ms)["sse"] == 0
    assert seen.holders == {}
    await room.pass_time(TTL_S + 1)
    assert (await room.look()).tickets == {}
