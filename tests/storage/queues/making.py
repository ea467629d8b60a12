"""What the tests of queues are made of: definitions of queues, and the side of a process that uses them."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from protocol.envelope import QueueCreate, queue_create
from protocol.queues import LANE_WEIGHTS, QueueType
from storage import keys
from storage.connections import connect, connect_blocking, connect_wire
from storage.queues import GROUP, Entry, Outbox, QueueServer, Subscription
from storage.wire import Wire

Outcome = Exception | None

LONG_S = 3600.0
"""A lease that no test outlasts."""


def queue(
    queue_id: str = "jobs",
    *,
    max_size: int = 10_000,
    expire_s: float = LONG_S,
    queue_type: QueueType = QueueType.JOB,
) -> QueueCreate:
    """The message that creates a queue."""
    return queue_create("login-1", queue_id, queue_type, max_size=max_size, expire_s=expire_s)


def lanes(*, max_size: int = 10_000) -> list[QueueCreate]:
    """The messages that create the three lanes of one kind of worker."""
    return [queue(keys.lane_queue("login", lane), max_size=max_size) for lane in LANE_WEIGHTS]


class Outcomes:
    """What the callbacks of messages were called with, call by call."""

    def __init__(self) -> None:
        self.by_message: dict[bytes, list[Outcome]] = defaultdict(list)

    def of(self, message: bytes) -> Callable[[Outcome], None]:
        """The callback of one message."""
        return self.by_message[message].append

    def kinds(self, message: bytes) -> list[type[Exception] | None]:
        """What the callback of one message was called with, call by call, None where Redis has it."""
        return [None if outcome is None else type(outcome) for outcome in self.by_message[message]]

    def accepted(self) -> list[bytes]:
        """The messages that Redis has, as their publishers know."""
        return [message for message in self.by_message if self.kinds(message) == [None]]

    def refused(self, why: type[Exception]) -> list[bytes]:
        """The messages that were refused for one reason."""
        return [message for message in self.by_message if self.kinds(message) == [why]]


class Peer:
    """One process's side of the queues: its clients, its outbox and its subscriptions."""

    def __init__(self, url: str) -> None:
        self.redis = connect(url)
        self.server = QueueServer(self.redis)
        wire = connect_wire(url)
        self.outbox = Outbox(wire)
        self._url = url
        self._clients: list[Redis | Wire] = [self.redis, wire]
        self._sending = asyncio.create_task(self.outbox.run())

    def subscribe(
        self,
        queues: Sequence[QueueCreate],
        consumer: str = "login-1",
        *,
        weights: Sequence[int] = (6, 3, 1),
        block_s: float = 0.01,
        group: str = GROUP,
    ) -> Subscription:
        """A subscription with a blocking client of its own."""
        blocking = connect_blocking(self._url, block_s)
        self._clients.append(blocking)
        weighed = {
            message.data.queue_id: (message, weight) for message, weight in zip(queues, weights, strict=False)
        }
        return Subscription(self.redis, blocking, weighed, consumer, block_s, group)

    async def publish(self, queue_id: str, messages: Sequence[bytes]) -> Outcomes:
        """Append messages in one turn, and wait until it is known what became of them."""
        outcomes = Outcomes()
        for message in messages:
            self.outbox.publish(queue_id, message, outcomes.of(message))
        await self.outbox.flushed()
        return outcomes

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Acknowledge entries in one turn, and wait until they are."""
        for entry in entries:
            self.outbox.acknowledge(entry)
        await self.outbox.flushed()

    async def stored(self, queue_id: str) -> list[bytes]:
        """The messages in a queue, read or unread, in its order."""
        rows: Any = await self.redis.xrange(queue_id)
        return [fields[b"m"] for _, fields in rows]

    async def letters(self, queue_id: str) -> list[dict[bytes, bytes]]:
        """The dead letters of a queue."""
        rows: Any = await self.redis.xrange(keys.dead_letters(queue_id))
        return [fields for _, fields in rows]

    async def counts(self, queue_id: str) -> dict[str, int]:
        """A queue's running counts."""
        stored: Any = await self.redis.hgetall(keys.queue_stats(queue_id))
        return {name.decode(): int(count) for name, count in stored.items()}

    async def held(self, queue_id: str, consumer: str) -> list[bytes]:
        """The ids of what a consumer has pending."""
        rows: Any = await self.redis.xpending_range(queue_id, GROUP, "-", "+", 10_000, consumername=consumer)
        return [row["message_id"] for row in rows]

    async def lapse(self, entry: Entry, consumer: str) -> None:
        """Let an entry look as if its consumer had not renewed it for longer than any lease."""
        idle_ms = int(2 * LONG_S * 1000)
        await self.redis.xclaim(
            entry.queue_id,
            GROUP,
            consumer,
            min_idle_time=0,
            message_ids=[entry.id],
            idle=idle_ms,
            justid=True,
        )

    async def lose_library(self) -> None:
        """Take every Function from Redis."""
        await self.redis.function_flush()

    async def close(self) -> None:
        """End the outbox, which must not have ended by itself, and the clients."""
        self._sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sending
        for client in self._clients:
            await client.aclose()


@contextlib.asynccontextmanager
async def open_peer(url: str) -> AsyncIterator[Peer]:
    """A peer that is closed in the end."""
    peer = Peer(url)
    try:
        yield peer
    finally:
        await peer.close()


async def fcalls(redis: Redis) -> int:
    """How many Functions a Redis was asked to call since its statistics were reset."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_fcall", {"calls": 0})["calls"])
