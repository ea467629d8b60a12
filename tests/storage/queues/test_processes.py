"""Consumers as processes, killed with SIGKILL in the middle of their work."""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.storage.queues.consumer import ATTEMPTS, DEATHS, HANDLED, POISON, QUEUE
from tests.storage.queues.making import Peer

MESSAGES = [f"job {number}".encode() for number in range(2000)]


@asynccontextmanager
async def consumer(url: str, name: str, lease_s: float) -> AsyncIterator[Process]:
    """A running consumer, which is killed in the end if it still lives."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.queues.consumer", url, name, str(lease_s))
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that comes about in another process."""
    while not await reached():
        await asyncio.sleep(0.02)


async def handled(peer: Peer, count: int) -> bool:
    return int(await peer.redis.scard(HANDLED)) >= count


async def is_empty(peer: Peer) -> bool:
    (now,) = await peer.server.statistics(["jobs"])
    return now.length == 0 and now.pending == 0


async def test_nothing_is_lost_when_two_of_three_consumers_are_killed(peer: Peer, redis_url: str) -> None:
    await peer.server.create(QUEUE)
    assert len((await peer.publish("jobs", MESSAGES)).accepted()) == len(MESSAGES)
    async with (
        consumer(redis_url, "first", 2.0) as first,
        consumer(redis_url, "second", 2.0) as second,
        consumer(redis_url, "third", 2.0) as third,
    ):
        await until(lambda: handled(peer, 300))
        first.kill()
        await until(lambda: handled(peer, 900))
        second.kill()
        await until(lambda: is_empty(peer))
        assert third.returncode is None
    assert {first.returncode, second.returncode} == {-signal.SIGKILL}
    assert await peer.redis.smembers(HANDLED) == set(MESSAGES)
    counts = await peer.counts("jobs")
    assert (counts["published"], counts["acknowledged"]) == (len(MESSAGES), len(MESSAGES))
    assert await peer.letters("jobs") == []


async def test_poison_is_retried_alone_then_given_up_its_neighbours_unharmed(
    peer: Peer, redis_url: str
) -> None:
    await peer.server.create(QUEUE)
    neighbours = MESSAGES[:10]
    await peer.publish("jobs", [*neighbours[:5], POISON, *neighbours[5:]])
    for attempt in range(ATTEMPTS):
        async with consumer(redis_url, f"login-{attempt}", 0.4) as victim:
            assert await victim.wait() == -signal.SIGKILL
    async with consumer(redis_url, "survivor", 0.4) as survivor:
        await until(lambda: is_empty(peer))
        assert survivor.returncode is None
    deaths: Any = await peer.redis.lrange(DEATHS, 0, -1)
    assert deaths[0].startswith(b"1 ")
    assert deaths[1:] == [b"2 0", b"3 0"]
    (letter,) = await peer.letters("jobs")
    assert (letter[b"m"], letter[b"cause"], letter[b"deliveries"]) == (POISON, b"CRASHED", b"4")
    assert await peer.redis.smembers(HANDLED) == set(neighbours)
