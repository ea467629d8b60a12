"""Reading queues as one consumer of their group."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from protocol.envelope import QueueCreate
from storage import keys
from storage.errors import StoreAway
from storage.functions import Argument
from storage.queues.entry import GROUP, Entry
from storage.queues.server import LIBRARY, QueueServer

T = TypeVar("T")


class Subscription:
    """One consumer's reads from one or more queues.

    `queues` gives each queue's creation message and the weight by which the consumer's capacity is
    shared while all have a backlog. `blocking` is a client of its own (`connect_blocking`) for the
    reads that wait for up to `block_s` seconds. A read is never cancelled: cancel the reader between reads.
    """

    def __init__(
        self,
        redis: Redis,
        blocking: Redis,
        queues: Mapping[str, tuple[QueueCreate, int]],
        consumer: str,
        block_s: float,
    ) -> None:
        self._redis = redis
        self._blocking = blocking
        self._queues = dict(queues)
        self._ids = list(queues)
        self._consumer = consumer
        self._block_ms = int(block_s * 1000)
        self.last_answer_s = 0.0

    @property
    def queue_ids(self) -> Sequence[str]:
        """The queues that are read, first ones first."""
        return self._ids

    async def create(self) -> None:
        """Create the queues and their group; harmless where they exist. Raises StoreAway."""
        await self._guarded(self._create())

    async def read(self, limit: int) -> list[Entry]:
        """Take up to about `limit` new entries, waiting for up to the block time when there are none.

        Raises StoreAway. A queue that Redis has lost is created again, and nothing is answered.
        """
        return await self._guarded(self._read(limit))

    async def claim(self, lease_s: float) -> Entry | None:
        """Take over one entry that its consumer has not renewed for `lease_s` seconds. Raises StoreAway."""
        return await self._guarded(self._claim(lease_s))

    async def renew(self, held: Mapping[str, Sequence[bytes]]) -> None:
        """Keep the entries (ids by queue) that are still being worked on. Raises StoreAway."""
        for queue_id, ids in held.items():
            if ids:
                await self._guarded(LIBRARY.call(self._redis, "queue_renew", [queue_id], [*self._who, *ids]))

    async def leave(self) -> None:
        """Stop being a consumer, where nothing is held any more. Raises StoreAway."""
        for queue_id in self._ids:
            await self._guarded(LIBRARY.call(self._redis, "queue_leave", [queue_id], self._who))

    @property
    def _who(self) -> list[Argument]:
        return [GROUP, self._consumer]

    async def _create(self) -> None:
        for message, _ in self._queues.values():
            await QueueServer(self._redis).create(message)

    async def _read(self, limit: int) -> list[Entry]:
        try:
            if len(self._ids) > 1:
                weights = [weight for _, weight in self._queues.values()]
                args = [*self._who, limit, *weights]
                answer = await LIBRARY.call(self._redis, "queue_read", self._ids, args)
                if answer:
                    return [entry for index, rows in answer for entry in _entries(self._ids[index - 1], rows)]
            answer = await self._wait(limit)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self._create()
            return []
        return [entry for queue_id, rows in answer or () for entry in _entries(queue_id.decode(), rows)]

    async def _wait(self, limit: int) -> Any:
        return await self._blocking.execute_command(
            "XREADGROUP", "GROUP", *self._who, "COUNT", limit, "BLOCK", self._block_ms,
            "STREAMS", *self._ids, *[">"] * len(self._ids),
        )  # fmt: skip

    async def _claim(self, lease_s: float) -> Entry | None:
        for queue_id in self._ids:
            names = [queue_id, keys.queue_stats(queue_id)]
            found = await LIBRARY.call(self._redis, "queue_claim", names, [*self._who, int(lease_s * 1000)])
            if found:
                entry_id, fields, deliveries = found
                return Entry(queue_id, entry_id, fields[1], deliveries)
        return None

    async def _guarded(self, reading: Awaitable[T]) -> T:
        try:
            answer = await reading
        except (RedisError, OSError) as error:
            raise StoreAway(f"Redis does not answer: {error}") from error
        self.last_answer_s = asyncio.get_running_loop().time()
        return answer


def _entries(queue_id: str, rows: Any) -> list[Entry]:
    return [Entry(queue_id, entry_id, fields[1]) for entry_id, fields in rows if fields]
