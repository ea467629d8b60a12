"""Estimates of waits: told from what the line really gives out, at the rate that is set, and measured."""

from collections.abc import AsyncIterator

import pytest

from storage import keys
from storage.tickets import Place
from tests.storage.room import MANY, Room, open_room

RATE = 600
"""Ten players a second."""

STEP_S = 0.1
STALL_S = 6
"""So far a busy machine may put off what a test does."""

LATE90 = 1.25
"""How much longer than the estimate nine of ten wait at most, before anything is known."""


@pytest.fixture
async def room(redis_url: str) -> AsyncIterator[Room]:
    async with open_room(redis_url, rate=RATE) as opened:
        yield opened


class Line:
    """People in line, and what becomes of those whose turn comes."""

    def __init__(self, room: Room, *, shows: int = 1, deadline_s: float = 0.3) -> None:
        """One of `shows` players comes in; the others never do."""
        self.room = room
        self.places: dict[str, Place] = {}
        self.late_s: dict[str, float | None] = {}
        self._shows, self._deadline_s = shows, deadline_s
        self._let_in = 0

    async def grow(self, count: int) -> None:
        """So many come."""
        for number in range(len(self.places), len(self.places) + count):
            place = await self.room.login(f"user-{number}", self.room.asker())
            self.places[place.tid] = place

    async def step(self) -> None:
        """A tenth of a second."""
        await self.room.pass_time(STEP_S)
        await self.let_in()

    async def let_in(self) -> None:
        """Let in who can be; those who come finalize at once."""
        admitted = (await self.room.admit(deadline_s=self._deadline_s)).admitted
        for tid in (each.tid for each in admitted):
            self._let_in += 1
            if self._let_in % self._shows == 0:
                number = list(self.places).index(tid)
                await self.room.finalize(self.places[tid], f"user-{number}")
        self.late_s |= {each.tid: each.late_s for each in admitted}

    async def told(self, tid: str) -> tuple[float | None, float | None]:
        """The wait that a player is told now, and that of nine of ten."""
        place = self.places[tid]
        await self.room.tickets.stream(tid, place.client_id, self.room.asker())
        first = (await self.room.look()).waiting.index(tid)
        (update,) = (await self.room.tickets.survey(first, 1, 0, 0)).updates
        return update.wait_s, update.p90_s


async def test_nothing_is_told_until_somebody_has_come_in(room: Room) -> None:
    line = Line(room)
    await line.grow(30)
    tids = list(line.places)
    assert {place.wait_s for place in line.places.values()} == {None}
    first = await room.admit_ids()
    assert await line.told(tids[-1]) == (None, None)
    await room.finalize(line.places[first[0]], "user-0")
    wait_s, p90_s = await line.told(tids[-1])
    assert wait_s is not None
    assert wait_s == pytest.approx(2.8, abs=0.5)
    assert p90_s == pytest.approx(wait_s * LATE90, abs=0.002)


async def test_login_stream_and_survey_tell_the_same(room: Room) -> None:
    line = Line(room)
    await line.grow(40)
    await line.let_in()
    place = await room.login("late")
    streamed = await room.tickets.stream(place.tid, place.client_id, room.asker())
    updates = (await room.tickets.survey(0, MANY, 0, 0)).updates
    told = [place.wait_s, streamed.wait_s, updates[-1].wait_s]
    assert told == [pytest.approx(3.9, abs=0.5)] * 3
    assert (await room.login("user-0")).wait_s is not None


async def test_who_is_ready_waits_for_nothing(room: Room) -> None:
    line = Line(room)
    await line.grow(3)
    await line.let_in()
    place = await room.login("ada")
    await room.pass_time(1)
    await room.admit_ids()
    assert (await room.tickets.stream(place.tid, place.client_id, room.asker())).wait_s == 0


async def test_places_that_no_shows_give_back_make_the_wait_shorter(room: Room) -> None:
    """Two of three never come: three times as many are let in as the rate says, and that is what is told."""
    line = Line(room, shows=3)
    await line.grow(1000)
    for _ in range(120):
        await line.step()
    waiting = (await room.look()).waiting
    # How many are left depends on how long the steps took; there is somebody, and not at the head.
    place = min(150, len(waiting))
    assert place > 20
    tid = waiting[place - 1]
    wait_s, _ = await line.told(tid)
    assert wait_s is not None
    assert wait_s < 0.5 * place * 60 / RATE
    while tid not in line.late_s:
        await line.step()
    assert line.late_s[tid] == pytest.approx(0, abs=0.15 * wait_s)


async def test_a_system_that_cannot_keep_up_tells_longer_waits(room: Room) -> None:
    """Looked at every 12 s the bucket loses what it cannot owe: half of the rate and more."""
    line = Line(room, deadline_s=600)
    await line.grow(300)
    for _ in range(20):
        await line.let_in()
        await room.pass_time(12)
    tid = (await room.look()).waiting[99]
    wait_s, _ = await line.told(tid)
    assert wait_s is not None
    assert wait_s > 2 * 100 * 60 / RATE


async def test_a_new_rate_is_told_at_once(room: Room) -> None:
    line = Line(room)
    await line.grow(200)
    for _ in range(20):
        await line.step()
    tid = (await room.look()).waiting[99]
    before, _ = await line.told(tid)
    await room.settings.set_rate(RATE * 2, "kim")
    after, _ = await line.told(tid)
    assert before == pytest.approx(10, abs=0.5)
    assert after == pytest.approx(5, abs=0.3)


async def test_a_pause_has_no_estimate_and_its_end_the_one_from_before(room: Room) -> None:
    line = Line(room)
    await line.grow(100)
    await line.step()
    tid = list(line.places)[-1]
    before, _ = await line.told(tid)
    assert before is not None
    await room.settings.pause("kim")
    assert await line.told(tid) == (None, None)
    await room.pass_time(120)
    await line.let_in()
    await room.settings.resume("kim")
    after, _ = await line.told(tid)
    assert after == pytest.approx(before, abs=0.6)


async def test_at_a_low_rate_the_time_since_the_last_one_counts(room: Room) -> None:
    await room.settings.configure(1, 1)
    line = Line(room, deadline_s=600)
    await line.grow(3)
    await line.let_in()
    first, last = list(line.places)[1:]
    assert (await line.told(last))[0] == pytest.approx(120, abs=STALL_S)
    await room.pass_time(45)
    assert (await line.told(first))[0] == pytest.approx(15, abs=STALL_S)
    assert (await line.told(last))[0] == pytest.approx(75, abs=STALL_S)


async def test_the_error_of_what_was_told_is_measured(room: Room) -> None:
    line = Line(room, deadline_s=600)
    await line.grow(20)
    await line.let_in()
    place = await room.login("ada")
    assert place.wait_s is not None
    await room.pass_time(60)
    late_s: dict[str, float | None] = {}
    while place.tid not in late_s:
        outcome = await room.admit()
        late_s |= {each.tid: each.late_s for each in outcome.admitted}
        await room.pass_time(0.1)
    assert late_s[place.tid] == pytest.approx(61 - place.wait_s, abs=STALL_S)
    assert [each for tid, each in late_s.items() if tid != place.tid] == [None] * (len(late_s) - 1)
    ledger = await room.tickets.ledger()
    assert ledger["estimateErrorSec"] == pytest.approx((late_s[place.tid] or 0) * 0.02, abs=0.01)
    assert float((await room.look()).bucket["late90"]) == pytest.approx(LATE90 * 1.018)


async def test_an_error_is_not_measured_over_a_change_of_the_rate(room: Room) -> None:
    line = Line(room, deadline_s=600)
    await line.grow(20)
    await line.let_in()
    await line.grow(1)
    tid = list(line.places)[-1]
    await room.pass_time(0.01)
    await room.settings.set_rate(60, "kim")
    await line.let_in()
    await room.pass_time(10)
    due = (await room.look()).tickets[tid]["due"]
    await line.told(tid)
    assert (await room.look()).tickets[tid]["due"] > due, "what is told at the new rate counts from now on"
    await room.redis.hset(keys.PORTAL_BUCKET, "rateAt", await room.now_ms() + 1000)
    await room.pass_time(30)
    admitted = []
    for _ in range(100):
        admitted += (await room.admit()).admitted
        await room.pass_time(1)
    assert tid in {each.tid for each in admitted}
    assert {each.late_s for each in admitted} == {None}


async def test_nine_of_ten_come_in_time(room: Room) -> None:
    """One in five is told half of the time that it takes: the bound finds out."""
    line = Line(room, deadline_s=600)
    await line.grow(1)
    await line.let_in()
    for number in range(400):
        place = await room.login(f"late-{number}")
        now = await room.now_ms()
        took_ms = 20_000 if number % 5 == 0 else 10_000
        await room.redis.hset(
            keys.ticket(place.tid), mapping={"estimatedAt": now - took_ms, "due": now - took_ms + 10_000}
        )
        await room.redis.hset(keys.PORTAL_BUCKET, "rateAt", now - 60_000)
        await room.pass_time(0.2)
        assert place.tid in await room.admit_ids()
    assert float((await room.look()).bucket["late90"]) == pytest.approx(2, abs=0.1)
