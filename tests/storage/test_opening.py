"""The opening: nobody is let in before it, who comes before it is drawn, and who comes after waits behind."""

import itertools
from collections.abc import AsyncIterator

import pytest

from storage import keys
from storage.admission import AdmissionSettings
from storage.holders import Entrance
from storage.tickets import Place, Tickets, Tier
from tests.storage.room import DEADLINE_S, MANY, TTL_S, Room, open_room

RATE = 60_000
HOUR_MS = 3_600_000
DRAWN = {"ada": 900, "bob": 100, "eve": 500, "mia": 300, "zoe": 700}
"""What users draw, of 1000."""


@pytest.fixture
async def room(redis_url: str) -> AsyncIterator[Room]:
    """A room that opens in an hour."""
    async with open_room(redis_url, rate=RATE) as opened:
        opened.tickets = Tickets(opened.redis, TTL_S, 2.0, lambda user: DRAWN.get(user, 0) * 2**32 // 1000)
        await open_in(opened, HOUR_MS)
        yield opened


async def open_in(room: Room, ms: int) -> None:
    """Have the doors open in so many ms from now."""
    await AdmissionSettings(room.redis).configure(RATE, 1, 2.0, await room.now_ms() + ms)


async def come(room: Room, *names: str, tier: Tier = Tier.NORMAL) -> dict[str, Place]:
    """These come, in this order, and stream."""
    places = {}
    for name in names:
        asker = room.asker()
        place = await room.tickets.issue(room.place(), name, asker, Entrance(), 1000, room.record(), tier)
        streamed = await room.tickets.stream(place.tid, place.client_id, asker)
        assert (streamed.position, streamed.opens_at) == (place.position, place.opens_at)
        places[name] = place
    return places


async def names_in_line(room: Room) -> list[str]:
    """Who waits, in order."""
    seen = await room.look()
    return [seen.tickets[tid]["uid"] for tid in seen.waiting]


async def test_who_comes_before_is_drawn_and_who_comes_after_waits_behind(room: Room) -> None:
    await come(room, *DRAWN)
    assert await room.admit_ids() == []
    await open_in(room, 0)
    await come(room, "late")
    assert await names_in_line(room) == ["bob", "mia", "eve", "zoe", "ada", "late"]
    await room.admit(0)
    await room.pass_time(1)
    order = [each.tid for each in (await room.admit()).admitted]
    seen = await room.look()
    assert [seen.tickets[tid]["uid"] for tid in order] == ["bob", "mia", "eve", "zoe", "ada", "late"]


async def test_tiers_are_drawn_each_for_itself(room: Room) -> None:
    await come(room, "ada", "bob")
    await come(room, "eve", "mia", tier=Tier.VIP)
    await come(room, "zoe", tier=Tier.PREMIUM)
    assert await names_in_line(room) == ["mia", "eve", "zoe", "bob", "ada"]


async def test_nobody_is_let_in_before_and_the_door_opens_in_time(room: Room) -> None:
    places = await come(room, "ada", "bob")
    outcome = await room.admit()
    assert (outcome.admitted, outcome.waiting) == ([], 2)
    assert outcome.pause_s == pytest.approx(HOUR_MS / 1000, abs=30)
    await room.redis.hset(keys.PORTAL_BUCKET, "refunds", 2)
    assert await room.admit_ids() == []
    await open_in(room, 0)
    await room.admit(0)
    await room.pass_time(1)
    assert set(await room.admit_ids()) == {place.tid for place in places.values()}


async def test_what_was_waited_before_the_opening_is_not_saved_up(room: Room) -> None:
    await AdmissionSettings(room.redis).configure(600, 1, 2.0, await room.now_ms() + HOUR_MS)
    await room.crowd(20)
    await room.admit()
    await room.pass_time(30)
    await AdmissionSettings(room.redis).configure(600, 1)
    assert len(await room.admit_ids()) == 2
    assert float((await room.look()).bucket["owed"]) == 0


async def test_to_come_again_draws_nothing_new(room: Room) -> None:
    places = await come(room, *DRAWN)
    before = await names_in_line(room)
    for name in ("ada", "mia"):
        await come(room, name)
        assert await names_in_line(room) == before
        seen = await room.look()
        tid = seen.holders[name]
        await room.tickets.cancel(tid, seen.tickets[tid]["clientId"], name, room.record())
        again = (await come(room, name))[name]
        assert again.tid != places[name].tid
        assert await names_in_line(room) == before


async def test_before_the_opening_a_place_is_the_last_of_the_tier_and_the_wait_unknown(room: Room) -> None:
    await come(room, "eve", tier=Tier.VIP)
    bob = (await come(room, "ada", "bob"))["bob"]
    await come(room, "zoe", "mia")
    assert (bob.position, bob.total_waiting, bob.wait_s) == (3, 3, None)
    assert bob.opens_at == pytest.approx(await room.now_ms() + HOUR_MS, abs=60_000)
    walk = await room.tickets.survey(0, MANY, 0, 0)
    assert walk.opens_at == bob.opens_at
    assert [(each.position, each.reason, each.wait_s) for each in walk.updates] == [
        (1, None, None), *[(5, None, None)] * 4,
    ]  # fmt: skip


async def test_before_the_opening_the_growing_crowd_is_no_news(room: Room) -> None:
    await come(room, *DRAWN)
    await room.pass_time(3)
    assert (await room.tickets.survey(0, MANY, 1.9, 7)).updates == []
    await room.pass_time(5)
    assert len((await room.tickets.survey(0, MANY, 1.9, 7)).updates) == 5


async def test_the_place_that_was_drawn_is_told_with_its_reason_once(room: Room) -> None:
    await come(room, *DRAWN)
    await room.settings.pause("kim")
    await open_in(room, 0)
    await come(room, "late")
    walk = await room.tickets.survey(0, MANY, 0, 60)
    assert walk.opens_at is None
    assert [(each.position, each.reason) for each in walk.updates] == [(n, "DRAWN") for n in range(1, 6)]
    assert [each.reason for each in (await room.tickets.survey(0, MANY, 0, 0)).updates] == [None] * 6


async def test_an_opening_that_is_put_off_keeps_who_was_drawn_with_the_others(room: Room) -> None:
    await come(room, "ada", "eve")
    await open_in(room, 2 * HOUR_MS)
    await come(room, "bob", "zoe")
    assert await names_in_line(room) == ["bob", "eve", "zoe", "ada"]
    await open_in(room, 0)
    await room.pass_time(1)
    await room.admit(0)
    await open_in(room, HOUR_MS)
    await come(room, "mia")
    assert (await names_in_line(room))[-1] == "mia", "another opening has a draw of its own"


async def test_an_opening_that_is_called_off_leaves_the_drawn_before_who_comes(room: Room) -> None:
    await come(room, "ada", "eve")
    await AdmissionSettings(room.redis).configure(RATE, 1)
    assert not await room.redis.hexists(keys.PORTAL_CONFIG, "opensAt")
    await come(room, "bob", "mia")
    assert await names_in_line(room) == ["eve", "ada", "bob", "mia"]


async def test_estimates_begin_anew_with_the_opening(room: Room) -> None:
    await open_in(room, 0)
    first = (await come(room, "ada"))["ada"]
    await room.admit()
    await room.finalize(first, "ada")
    assert (await come(room, "bob"))["bob"].wait_s is not None
    await open_in(room, HOUR_MS)
    await room.admit()
    assert (await come(room, "eve"))["eve"].wait_s is None
    await open_in(room, 0)
    await room.admit(0)
    assert (await come(room, "mia"))["mia"].wait_s is None
    (tid,) = await room.admit_ids(1)
    seen = await room.look()
    uid = seen.tickets[tid]["uid"]
    place = Place(tid, seen.tickets[tid]["clientId"], first.status, 0, 0)
    await room.finalize(place, uid)
    assert (await come(room, "zoe"))["zoe"].wait_s is not None


async def test_the_ledger_and_the_bound_hold_for_the_drawn(room: Room) -> None:
    """Of every two places one goes to the longest waiting, also among those who were drawn."""
    for number, name in enumerate(DRAWN):
        await come(room, name, f"{name}-2", tier=list(Tier)[number % 3])
    await open_in(room, 0)
    told = {str(each.owner): each.position for each in (await room.tickets.survey(0, MANY, 0, 0)).updates}
    seen = await room.look()
    position = {tid: told[seen.tickets[tid]["owner"]] for tid in seen.waiting}
    for turn in itertools.count(1):
        tids = await room.admit_ids(1, DEADLINE_S)
        if not tids:
            break
        assert turn <= position[tids[0]]
    ledger = await room.tickets.ledger()
    assert ledger["issued"] == 10 == ledger["ready"]
