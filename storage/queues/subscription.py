"""Reading queues as one consumer of their group."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from protocol.envelope import QueueCreate
from protocol.queues import QueueType
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.queues.entry import GROUP, Entry
from storage.queues.server import LIBRARY, QueueServer
from storage.wire import Argument, Executor

T = TypeVar("T")

WEIGHT_STEPS = 4
"""A priority is told apart from another by a quarter of a lane's lowest weight."""


class Subscription:
    """One consumer's reads from one or more queues.

    `queues` gives each queue's creation message and the weight by which the consumer's capacity is
    shared while all have a backlog. `blocking` is a client of its own (`connect_blocking`) for
    reads, which wait for up to `block_s` seconds. `group` is whose share of the entries this is part of.
    A read is never cancelled: cancel the reader between reads.
    """

    def __init__(
        self,
        redis: Redis,
        blocking: Executor,
        queues: Mapping[str, tuple[QueueCreate, int]],
        consumer: str,
        block_s: float,
        group: str = GROUP,
    ) -> None:
        self._redis = redis
        self._blocking = blocking
        self._queues = dict(queues)
        self._ids = list(queues)
        self._weights: list[int] = []
        self._ordinary = [weight for _, weight in queues.values()]
        self.weigh({})
        self._consumer = consumer
        self._group = group
        self._block_ms = int(block_s * 1000)
        self._backlog = len(self._ids) > 1
        self.last_answer_s = 0.0

    def weigh(self, priorities: Mapping[str, float]) -> None:
        """Share between the queues by their weights times these, 1 for a queue that is not named."""
        exact = [
            max(1, round(WEIGHT_STEPS * weight * priorities.get(queue_id, 1.0)))
            for queue_id, weight in zip(self._ids, self._ordinary, strict=True)
        ]
        unit = math.gcd(*exact)
        weights = [weight // unit for weight in exact]
        if weights != self._weights:
            self._weights, self._turns = weights, itertools.cycle(_turns(weights))

    @property
    def queue_ids(self) -> Sequence[str]:
        """The queues that are read, first ones first."""
        return self._ids

    async def create(self) -> None:
        """Create the queues and their group; harmless where they exist. Raises StoreAway."""
        await self._guarded(self._create())

    async def read(self, limit: int) -> list[Entry]:
        """Take new entries, waiting for the block time when there are none.

        While more than one queue has a backlog, up to `limit` (at least 1) shared between them by weight;
        else up to `limit` of each. A queue that Redis has lost is created again, and nothing is answered.
        Raises StoreAway.
        """
        return await self._guarded(self._read(limit))

    async def claim(self, lease_s: float) -> Entry | None:
        """Take over one entry that its consumer has not renewed for `lease_s` seconds. Raises StoreAway."""
        return await self._guarded(self._claim(lease_s))

    async def renew(self, held: Mapping[str, Sequence[bytes]]) -> None:
        """Keep the entries (ids by queue) that are still being worked on. Raises StoreAway."""
        for queue_id, ids in held.items():
            if ids:
                await self._guarded(self._held("queue_renew", [queue_id], [*self._who, *ids]))

    async def tidy(self, queue_type: QueueType) -> None:
        """Remove what has expired unread, and the names of consumers long gone. Raises StoreAway."""
        server = QueueServer(self._redis)
        for queue_id in self._ids:
            await self._guarded(server.expire(queue_id, queue_type, self._group))
            await self._guarded(server.forget_dead_consumers(queue_id, self._group))

    async def leave(self) -> None:
        """Stop being a consumer, where nothing is held any more. Raises StoreAway."""
        for queue_id in self._ids:
            await self._guarded(self._held("queue_leave", [queue_id], self._who))

    @property
    def _who(self) -> list[Argument]:
        return [self._group, self._consumer]

    async def _create(self) -> None:
        for message, _ in self._queues.values():
            await QueueServer(self._redis).create(message, self._group)

    async def _read(self, limit: int) -> list[Entry]:
        try:
            entries = await self._share(limit) if self._backlog else []
            entries = entries or await self._wait(limit)
        except ResponseError as error:
            if not _is_lost(error):
                raise
            await self._create()
            return []
        self._backlog = self._share_next(entries, limit)
        return entries

    def _share_next(self, entries: Sequence[Entry], limit: int) -> bool:
        """Whether more than one queue may have more than was read. Only then weights matter; reading by them
        costs Redis twice as much.
        """
        if len(self._ids) == 1 or len(entries) < limit:
            return False
        # Of less than a round not every queue has got a share.
        return limit < sum(self._weights) or len({entry.queue_id for entry in entries}) > 1

    async def _share(self, limit: int) -> list[Entry]:
        """What is there, shared between the queues by weight."""
        args = [*self._who, *self._shares(limit)]
        answer = await LIBRARY.call(self._blocking, "queue_read", self._ids, args)
        return [entry for index, rows in answer for entry in self._entries(self._ids[index - 1], rows)]

    def _shares(self, limit: int) -> list[int]:
        """How much of `limit` each queue gets. What is left goes round, or a small limit starves some."""
        rounds, rest = divmod(limit, sum(self._weights))
        shares = [rounds * weight for weight in self._weights]
        for index in itertools.islice(self._turns, rest):
            shares[index] += 1
        return shares

    async def _wait(self, limit: int) -> list[Entry]:
        """What is there, up to `limit` of each queue, or what comes within the block time."""
        answer = await self._blocking.execute_command(
            "XREADGROUP", "GROUP", *self._who, "COUNT", limit, "BLOCK", self._block_ms,
            "STREAMS", *self._ids, *[">"] * len(self._ids),
        )  # fmt: skip
        return [entry for queue_id, rows in answer or () for entry in self._entries(queue_id.decode(), rows)]

    def _entries(self, queue_id: str, rows: Any) -> list[Entry]:
        return [
            Entry(queue_id, entry_id, fields[1], group=self._group) for entry_id, fields in rows if fields
        ]

    async def _claim(self, lease_s: float) -> Entry | None:
        for queue_id in self._ids:
            names = [queue_id, keys.queue_stats(queue_id)]
            found = await self._held("queue_claim", names, [*self._who, int(lease_s * 1000)])
            if found:
                entry_id, fields, deliveries = found
                return Entry(queue_id, entry_id, fields[1], deliveries, self._group)
        return None

    async def _held(self, function: str, names: Sequence[str], args: Sequence[Argument]) -> Any:
        """Call a function about held entries: None where Redis has lost the queue and all that was held."""
        try:
            return await LIBRARY.call(self._redis, function, names, args)
        except ResponseError as error:
            if not _is_lost(error):
                raise
            return None

    async def _guarded(self, reading: Awaitable[T]) -> T:
        with redis_away_is_store_away():
            answer = await reading
        self.last_answer_s = asyncio.get_running_loop().time()
        return answer


def _turns(weights: Sequence[int]) -> list[int]:
    """Queues by number, each as often as its weight says and spread evenly over the round."""
    turns = [((turn + 0.5) / weight, index) for index, weight in enumerate(weights) for turn in range(weight)]
    return [index for _, index in sorted(turns)]


def _is_lost(error: ResponseError) -> bool:
    """Whether the queue or its group is gone. Redis 7.0 says UNBLOCKED to a reader that waits meanwhile."""
    return str(error).startswith(("NOGROUP", "UNBLOCKED"))
