"""The rate of admission: kept in every window by any number of workers, and reached."""

import asyncio

import pytest

from storage import keys
from tests.servers import RedisServer
from tests.storage.room import DEADLINE_S, MANY, Room, Seen, open_room

RUN_MS = 12_000
WINDOW_MS = 10_000
BURST_MS = 100


async def admitted(room: Room, after_s: float = 0, deadline_s: float = DEADLINE_S) -> int:
    if after_s:
        await room.pass_time(after_s)
    return len(await room.admit_ids(deadline_s=deadline_s))


async def work(url: str, until_ms: int) -> None:
    """One worker's loop, with a connection of its own and the pauses of workers/login/admission.py."""
    worker = Room(url)
    while await worker.now_ms() < until_ms:
        pause_s = (await worker.admit()).pause_s
        await asyncio.sleep(min(max(pause_s or 0.0, 0.02), 0.1))
    await worker.close()


def not_lost(seen: Seen, rate: int) -> float:
    """The players that there was permission for since the first one came in, less those who did."""
    times = [int(fields["readyAt"]) for fields in seen.tickets.values() if "readyAt" in fields]
    came = 1 + rate / 60_000 * (BURST_MS + int(seen.bucket["at"]) - min(times))
    return came - len(times)


def held(seen: Seen) -> float:
    """The permission that is at hand or owed."""
    return float(seen.bucket["tokens"]) + float(seen.bucket["owed"])


async def test_three_workers_keep_the_rate_in_every_window_and_reach_it_with_a_redis_that_stalls(
    own_valkey: RedisServer,
) -> None:
    async with open_room(own_valkey.url, rate=6000) as room:
        places = await room.crowd(1400)
        first_ms = await room.now_ms()
        working = asyncio.gather(*(work(own_valkey.url, first_ms + RUN_MS) for _ in range(3)))
        for _ in range(3):
            await asyncio.sleep(2)
            own_valkey.pause()
            await asyncio.sleep(0.7)
            own_valkey.resume()
        await working
        seen = await room.look()
        times = sorted(int(fields["readyAt"]) for fields in seen.tickets.values() if "readyAt" in fields)
        assert max(sum(at <= other <= at + WINDOW_MS for other in times) for at in times) <= 1000
        assert len(times) >= 0.95 * 6000 / 60_000 * (times[-1] - first_ms)
        assert times[-1] - first_ms >= 0.95 * RUN_MS
        assert seen.waiting == [place.tid for place in places[len(times) :]]
        assert held(seen) == pytest.approx(not_lost(seen, 6000), abs=0.01)


async def test_a_low_rate_admits_the_first_at_once(room: Room) -> None:
    await room.settings.configure(3, 1)
    await room.crowd(3)
    assert await admitted(room) == 1
    assert await admitted(room, 11) == 0
    assert await admitted(room, 10) == 1
    assert await admitted(room, 15) == 0
    outcome = await room.admit()
    assert outcome.pause_s is not None
    assert 0 < outcome.pause_s <= 5


@pytest.mark.parametrize(("rate", "each_s"), [(7, 8.58), (16, 3.76), (100, 0.601)])
async def test_a_rate_that_gives_a_window_no_whole_number_is_reached(
    room: Room, rate: int, each_s: float
) -> None:
    """A sixth of it is 1.2, 2.7 or 16.7 players in 10 s: the last of them is let in whole."""
    await room.settings.configure(rate, 1)
    await room.crowd(30)
    assert sum([await admitted(room, each_s, deadline_s=600) for _ in range(20)]) >= 20
    seen = await room.look()
    assert 0 <= not_lost(seen, rate) < 2.2
    assert held(seen) == pytest.approx(not_lost(seen, rate), abs=0.001)


async def test_what_could_not_be_used_is_made_good_at_twice_the_rate(room: Room) -> None:
    await room.settings.configure(600, 1)
    await room.crowd(200)
    began_ms = await room.now_ms()
    assert await admitted(room) == 2
    counts = [await admitted(room, 3), *[await admitted(room, 0.1) for _ in range(60)]]
    assert max(counts) <= 2
    assert counts[:28] == [2] * 28
    on_the_way = (await room.now_ms() - began_ms) / 100  # what came while the calls were under way
    assert 89 <= sum(counts) <= 93 + on_the_way
    seen = await room.look()
    assert held(seen) == pytest.approx(not_lost(seen, 600), abs=0.001)


async def test_no_more_is_made_good_than_a_window_has_room_for(room: Room) -> None:
    await room.settings.configure(600, 1)
    await room.crowd(250)
    assert await admitted(room) == 2
    counts = [await admitted(room, 40), *[await admitted(room, 0.1) for _ in range(60)]]
    assert sum(counts) == 100
    assert counts[:49] == [2] * 49
    assert float((await room.look()).bucket["owed"]) <= 50
    assert await admitted(room, 5) == 2


async def test_a_full_window_says_when_its_oldest_leave(room: Room) -> None:
    await room.settings.configure(600, 1)
    await room.crowd(150)
    await room.admit()
    assert sum([await admitted(room, after_s) for after_s in (40, *[0.1] * 59)]) == 100
    outcome, seen = await room.admit(), await room.look()
    assert outcome.admitted == []
    assert float(seen.bucket["tokens"]) >= 1
    assert outcome.pause_s == (seen.window[0][0] + WINDOW_MS + 1 - int(seen.bucket["at"])) / 1000


async def test_permission_is_not_saved_up_while_nobody_waits(room: Room) -> None:
    await room.settings.configure(6000, 1)
    assert await admitted(room) == 0
    await room.pass_time(30)
    await room.crowd(60)
    assert await admitted(room) == 11
    assert float((await room.look()).bucket["owed"]) == 0


async def test_a_worker_that_is_a_little_late_each_time_loses_nothing(room: Room) -> None:
    """At 600 a minute a token comes every 0.1 s, and a bucket for one alone would overflow meanwhile."""
    await room.settings.configure(600, 1)
    await room.crowd(60)
    count, passed_s = 0, 0.0
    for _ in range(20):
        outcome = await room.admit()
        count += len(outcome.admitted)
        late_s = (outcome.pause_s or 0.0) + 0.09
        await room.pass_time(late_s)
        passed_s += late_s
    assert count >= 600 / 60 * (passed_s - 0.2)


async def test_a_rate_that_falls_holds_at_once(room: Room) -> None:
    await room.settings.configure(6000, 1)
    await room.crowd(60)
    assert await admitted(room) == 11
    await room.settings.configure(60, 1)
    assert await admitted(room, 5) == 0
    assert await admitted(room, 5.1) == 1
    assert await admitted(room, 0.05) <= 1


async def test_a_rate_that_rises_holds_at_once(room: Room) -> None:
    await room.settings.configure(6, 1)
    await room.crowd(60)
    assert await admitted(room) == 1
    await room.settings.configure(6000, 1)
    assert await admitted(room, 1) == 11


@pytest.mark.parametrize("lost", [False, True])
async def test_no_rate_admits_nobody_not_even_in_the_place_of_a_no_show(room: Room, lost: bool) -> None:
    await room.crowd(5)
    assert len(await room.admit_ids(2)) == 2
    if lost:
        await room.redis.delete(keys.PORTAL_CONFIG)
    else:
        await room.settings.configure(0, 1)
    await room.pass_time(DEADLINE_S + 1)
    outcome = await room.admit()
    assert (outcome.admitted, len(outcome.expired), outcome.waiting) == ([], 2, 3)
    assert outcome.pause_s is None


async def test_a_no_shows_place_goes_to_the_next_in_the_same_call(room: Room) -> None:
    await room.settings.configure(3, 1)
    first, second, third = await room.crowd(3)
    assert await room.admit_ids(deadline_s=5) == [first.tid]
    await room.pass_time(6)
    outcome = await room.admit(deadline_s=5)
    assert [ended.tid for ended in outcome.expired] == [first.tid]
    assert [each.tid for each in outcome.admitted] == [second.tid]
    await room.pass_time(6)
    assert await room.admit_ids() == [third.tid]
    assert (await room.look()).bucket["inWindow"] == "0"


async def test_more_no_shows_than_one_call_takes_are_made_good_by_the_next(room: Room) -> None:
    await room.crowd(20)
    assert len(await room.admit_ids(10)) == 10
    await room.settings.configure(3, 1)
    await room.pass_time(DEADLINE_S + 1)
    sizes = []
    for _ in range(3):
        outcome = await room.admit(4)
        sizes.append((len(outcome.expired), len(outcome.admitted)))
    assert sizes == [(4, 4), (4, 4), (2, 2)]


async def test_a_cancelled_ready_tickets_place_goes_to_the_next(room: Room) -> None:
    await room.settings.configure(3, 1)
    first, second, third, fourth = await room.crowd(4)
    assert await room.admit_ids() == [first.tid]
    await room.tickets.cancel(second.tid, second.client_id, "user-1", room.record())
    assert await room.admit_ids() == []
    record = room.record()
    for _ in range(2):  # a repeat gives nothing back again
        await room.tickets.cancel(first.tid, first.client_id, "user-0", record)
    outcome = await room.admit()
    assert [each.tid for each in outcome.admitted] == [third.tid]
    assert await room.admit_ids() == []
    assert (await room.look()).waiting == [fourth.tid]


async def test_a_place_given_back_to_nobody_is_not_saved_up(room: Room) -> None:
    await room.settings.configure(6, 1)
    (first,) = await room.crowd(1)
    await room.admit()
    await room.tickets.cancel(first.tid, first.client_id, "user-0", room.record())
    assert (await room.admit()).pause_s is None
    await room.crowd(3)
    assert await admitted(room) == 0
    assert await admitted(room, 7) == 0
    assert await admitted(room, 4) == 1


async def test_the_pause_is_until_somebody_can_be_admitted(room: Room) -> None:
    await room.settings.configure(60, 1)
    assert (await room.admit()).pause_s is None
    await room.crowd(3)
    outcome = await room.admit()
    assert len(outcome.admitted) == 1
    assert outcome.pause_s is not None
    assert 0.5 < outcome.pause_s <= 1
    await room.pass_time(outcome.pause_s)
    assert await admitted(room) == 1


async def test_an_abandoned_head_holds_nobody_up(room: Room) -> None:
    await room.settings.configure(3, 1)
    gone = await room.crowd(3)
    await room.pass_time(901)
    place = await room.login("ada")
    outcome = await room.admit()
    assert [(ended.tid, ended.reason) for ended in outcome.expired] == [
        (each.tid, "ABANDONED") for each in gone
    ]
    assert [admitted.tid for admitted in outcome.admitted] == [place.tid]


async def test_nothing_is_lost_of_large_numbers(room: Room) -> None:
    """A rate of 100,000,000 a minute: the bucket holds 166,667, more than fourteen digits show of a token."""
    await room.settings.configure(1_000_000, 100)
    await room.crowd(5)
    assert await admitted(room) == 5
    seen = await room.look()
    assert float(seen.bucket["tokens"]) == pytest.approx(1 + 100_000_000 / 600 - 5)
    await room.redis.delete(keys.PORTAL_WINDOW)
    await room.redis.rpush(keys.PORTAL_WINDOW, f"{await room.now_ms()}:16666660")
    await room.redis.hset(keys.PORTAL_BUCKET, "inWindow", 16_666_660)
    await room.crowd(0)
    for number in range(10):
        await room.login(f"late-{number}")
    assert len(await room.admit_ids(MANY)) == 7
