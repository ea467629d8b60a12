"""The hashing lane: bounded, deaf to who no longer listens, and as slow for nobody as for somebody."""

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial

import bcrypt
import pytest

from protocol.errors import BUSY, RequestError
from runtime.settings import AuthSettings
from workers.login.hashing import Hashing

LATER_MS = 2**53
HERE, THERE = "192.0.2.1", "192.0.2.2"
MOST = 100


def make(threads: int = 2, backlog: int = 3, most_per_address: int = MOST) -> Hashing:
    return Hashing(AuthSettings(bcrypt_cost=4, hash_threads=threads, hash_backlog=backlog), most_per_address)


@pytest.fixture
def hashing() -> Iterator[Hashing]:
    lane = make()
    yield lane
    lane.close()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that bcrypt really checked a password against."""
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, password_hash: bytes) -> bool:
        checked.append(password_hash)
        return real(password, password_hash)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return checked


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds up every check until it is set."""
    event = threading.Event()
    real = bcrypt.checkpw

    def checkpw(password: bytes, password_hash: bytes) -> bool:
        assert event.wait(30)
        return real(password, password_hash)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    yield event
    event.set()


@pytest.mark.parametrize(
    "password", ["12345678", "비밀번호입니다🎮", "x" * 72, "가" * 24, "nul\x00inside", " " * 8]
)
async def test_a_password_matches_its_hash_and_no_other(hashing: Hashing, password: str) -> None:
    made = await hashing.hash(password, LATER_MS, HERE)
    assert made.startswith("$2b$04$")
    assert await hashing.hash(password, LATER_MS, HERE) != made
    assert await hashing.check(password, made, LATER_MS, HERE)
    assert not await hashing.check(password[:-1], made, LATER_MS, HERE)
    assert not await hashing.check("", made, LATER_MS, HERE)


async def test_all_of_72_bytes_count(hashing: Hashing) -> None:
    made = await hashing.hash("x" * 72, LATER_MS, HERE)
    assert not await hashing.check("x" * 71 + "y", made, LATER_MS, HERE)


async def test_an_unknown_user_costs_one_check_as_dear_as_any(hashing: Hashing, checks: list[bytes]) -> None:
    made = await hashing.hash("password", LATER_MS, HERE)
    assert not await hashing.check("password", None, LATER_MS, HERE)
    assert await hashing.check("password", made, LATER_MS, HERE)
    (nobodys, somebodys) = checks
    assert nobodys[:7] == somebodys[:7] == b"$2b$04$"


async def test_who_has_no_hash_matches_nothing(hashing: Hashing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: True)
    assert not await hashing.check("the very password", None, LATER_MS, HERE)


async def test_past_its_deadline_nothing_is_computed(hashing: Hashing, checks: list[bytes]) -> None:
    made = await hashing.hash("password", LATER_MS, HERE)
    past_ms = int(time.time() * 1000) - 1000
    for password_hash in (made, None):
        with pytest.raises(RequestError) as refused:
            await hashing.check("password", password_hash, past_ms, HERE)
        assert refused.value.kind is BUSY
        assert refused.value.retry_after_ms is not None
        assert refused.value.retry_after_ms > 0
    with pytest.raises(RequestError):
        await hashing.hash("password", past_ms, HERE)
    assert checks == []


async def test_what_waits_past_its_deadline_costs_nothing(gate: threading.Event, checks: list[bytes]) -> None:
    lane = make(threads=1, backlog=5)
    soon_ms = int(time.time() * 1000) + 200
    first = asyncio.create_task(lane.check("password", None, LATER_MS, HERE))
    late = [asyncio.create_task(lane.check("password", None, soon_ms, HERE)) for _ in range(4)]
    while time.time() * 1000 <= soon_ms + 1:
        await asyncio.sleep(0.02)
    gate.set()
    assert await first is False
    results = await asyncio.gather(*late, return_exceptions=True)
    assert [isinstance(result, RequestError) for result in results] == [True] * 4
    assert len(checks) == 1
    lane.close()


async def test_more_than_the_backlog_is_busy_at_once_and_room_comes_back(gate: threading.Event) -> None:
    lane = make(threads=2, backlog=3)
    taken = [asyncio.create_task(lane.check("password", None, LATER_MS, HERE)) for _ in range(5)]
    await asyncio.sleep(0)
    for work in (partial(lane.check, "password", None), partial(lane.hash, "password")):
        with pytest.raises(RequestError) as refused:
            await work(LATER_MS, HERE)
        assert refused.value.kind is BUSY
    gate.set()
    assert await asyncio.gather(*taken) == [False] * 5
    assert await lane.check("password", None, LATER_MS, HERE) is False
    lane.close()


async def test_a_full_lane_says_so_before_anything_is_done(gate: threading.Event) -> None:
    lane = make(threads=1, backlog=1)
    lane.refuse_when_full(HERE)
    taken = [asyncio.create_task(lane.check("password", None, LATER_MS, HERE)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as refused:
        lane.refuse_when_full(THERE)
    assert refused.value.kind is BUSY
    assert (refused.value.retry_after_ms or 0) > 0
    gate.set()
    await asyncio.gather(*taken)
    lane.refuse_when_full(THERE)
    lane.close()


async def test_an_address_has_a_part_of_the_lane(gate: threading.Event) -> None:
    lane = make(threads=1, backlog=9, most_per_address=3)
    taken = [asyncio.create_task(lane.check("password", None, LATER_MS, HERE)) for _ in range(3)]
    await asyncio.sleep(0)
    for work in (partial(lane.check, "password", None), partial(lane.hash, "password")):
        with pytest.raises(RequestError) as refused:
            await work(LATER_MS, HERE)
        assert refused.value.kind is BUSY
    with pytest.raises(RequestError):
        lane.refuse_when_full(HERE)
    lane.refuse_when_full(THERE)
    taken.append(asyncio.create_task(lane.check("password", None, LATER_MS, THERE)))
    gate.set()
    await asyncio.gather(*taken)
    assert not await lane.check("password", None, LATER_MS, HERE)
    lane.close()


async def test_who_is_cancelled_leaves_the_lane(gate: threading.Event) -> None:
    lane = make(threads=1, backlog=1)
    taken = [asyncio.create_task(lane.check("password", None, LATER_MS, HERE)) for _ in range(2)]
    await asyncio.sleep(0)
    taken[1].cancel()
    await asyncio.wait(taken[1:])
    third = asyncio.create_task(lane.check("password", None, LATER_MS, HERE))
    await asyncio.sleep(0)
    gate.set()
    assert await taken[0] is await third is False
    lane.close()


async def test_a_failure_in_a_thread_is_its_callers_and_frees_the_lane(hashing: Hashing) -> None:
    for _ in range(10):
        with pytest.raises(ValueError, match="salt"):
            await hashing.check("password", "no hash of bcrypt's", LATER_MS, HERE)
    assert not await hashing.check("password", None, LATER_MS, HERE)


async def test_the_loop_goes_on_meanwhile(gate: threading.Event) -> None:
    lane = make(threads=1, backlog=1)
    waiting = asyncio.create_task(lane.check("password", None, LATER_MS, HERE))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    assert await waiting is False
    lane.close()


async def test_the_lane_is_as_wide_as_it_is_told(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = 0
    most = 0
    lock = threading.Lock()
    held = bcrypt.checkpw

    def checkpw(password: bytes, password_hash: bytes) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside == 3:
                gate.set()
        same = held(password, password_hash)
        with lock:
            inside -= 1
        return same

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    lane = make(threads=3, backlog=20)
    await asyncio.gather(*(lane.check("password", None, LATER_MS, HERE) for _ in range(20)))
    assert most == 3
    lane.close()
