"""Creating, inspecting and sweeping queues."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from protocol.envelope import QueueCreate
from protocol.queues import QueueType
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.queues.entry import GROUP, Entry, refusal
from storage.wire import Argument

LIBRARY = Library("queues")

SWEEP_BATCH = 1000
FORGET_AFTER_S = 300.0


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A queue now. `length` is its backlog, read or unread; `pending` is what consumers hold of it."""

    queue_id: str
    queue_type: str
    length: int
    pending: int
    consumers: int
    oldest_age_sec: float
    max_size: int


class QueueServer:
    """The queue server as processes and operators see it. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(self, message: QueueCreate, group: str = GROUP) -> bool:
        """Create a queue and its group, or give an existing one new settings. Answers whether it was made.

        Who only publishes to the queue has the group "".
        """
        definition, config = message.data, message.data.config
        meta: dict[str, str | float] = {
            "queueType": definition.queue_type,
            "maxSize": config.max_size,
            "expireTime": config.expire_time,
            "priority": config.priority,
            "serverId": definition.server_id,
            "createdAt": int(time.time() * 1000),
        }
        queue_id = definition.queue_id
        made = await self._call(
            "queue_create",
            [queue_id, keys.queue_meta(queue_id), keys.QUEUE_IDS],
            [queue_id, group, *(part for field in meta.items() for part in field)],
        )
        return bool(made)

    async def delete(self, queue_id: str) -> int:
        """Remove a queue whose reader will not come back. Answers how many entries went with it."""
        names = [queue_id, keys.queue_meta(queue_id), keys.queue_stats(queue_id), keys.QUEUE_IDS]
        return int(await self._call("queue_delete", names, [queue_id]))

    async def append(self, queue_id: str, message: bytes) -> None:
        """Append one message and wait for it. Raises Busy or UnknownQueue. For the rare one: see `Outbox`."""
        names = [queue_id, keys.queue_meta(queue_id), keys.queue_stats(queue_id)]
        taken = await self._call("queue_publish", names, [message])
        if taken != 1:
            raise refusal(queue_id, taken)

    async def expire(self, queue_id: str, queue_type: QueueType, group: str = GROUP) -> int:
        """Remove entries that the group did not read within the queue's expireTime. Answers how many."""
        names = [queue_id, keys.queue_meta(queue_id), keys.queue_stats(queue_id), keys.dead_letters(queue_id)]
        args: list[Argument] = [queue_id, group, int(queue_type.keeps_expired), SWEEP_BATCH]
        return int(await self._call("queue_expire", names, args))

    async def dead_letter(self, entry: Entry, cause: str) -> bool:
        """Give up on an entry: it moves to the queue's dead letters with its cause. False if it was gone."""
        names = [entry.queue_id, keys.queue_stats(entry.queue_id), keys.dead_letters(entry.queue_id)]
        args: list[Argument] = [entry.queue_id, entry.group, entry.id, cause, entry.deliveries]
        return await self._call("queue_dead_letter", names, args) is not None

    async def forget_dead_consumers(self, queue_id: str, group: str = GROUP) -> int:
        """Drop the names of consumers that have not claimed for long and hold nothing. Answers how many."""
        args: list[Argument] = [group, int(FORGET_AFTER_S * 1000)]
        return int(await self._call("queue_forget", [queue_id], args))

    async def ids(self) -> list[str]:
        """The queues that exist, by name."""
        with redis_away_is_store_away():
            names: set[bytes] = await self._redis.smembers(keys.QUEUE_IDS)  # type: ignore[assignment]
        return sorted(name.decode() for name in names)

    async def statistics(self, queue_ids: Sequence[str]) -> list[QueueStatistics]:
        """The given queues as they are now, in one round trip; those that do not exist are left out."""
        now_s = time.time()
        pipeline = self._redis.pipeline(transaction=False)
        for queue_id in queue_ids:
            pipeline.hmget(keys.queue_meta(queue_id), "queueType", "maxSize")
            pipeline.xlen(queue_id)
            pipeline.xinfo_groups(queue_id)
            pipeline.xrange(queue_id, count=1)
        with redis_away_is_store_away():
            answers = await pipeline.execute(raise_on_error=False)
        found = []
        for index, queue_id in enumerate(queue_ids):
            meta, length, groups, oldest = answers[4 * index : 4 * index + 4]
            if isinstance(groups, Exception) or meta[0] is None:
                continue
            found.append(
                QueueStatistics(
                    queue_id=queue_id,
                    queue_type=meta[0].decode(),
                    length=length,
                    pending=sum(group["pending"] for group in groups),
                    consumers=sum(group["consumers"] for group in groups),
                    oldest_age_sec=_age_s(oldest[0][0], now_s) if oldest else 0.0,
                    max_size=int(meta[1]),
                )
            )
        return found

    async def holders(self, queue_type: QueueType) -> dict[str, int]:
        """How many entries of queues of a type each consumer holds, by the consumer's name."""
        pipeline = self._redis.pipeline(transaction=False)
        for queue in await self.statistics(await self.ids()):
            if queue.queue_type == queue_type.label and queue.pending:
                pipeline.xinfo_consumers(queue.queue_id, GROUP)
        with redis_away_is_store_away():
            answers = await pipeline.execute(raise_on_error=False)
        held: Counter[str] = Counter()
        for consumers in answers:
            for consumer in () if isinstance(consumers, Exception) else consumers:
                held[consumer["name"].decode()] += consumer["pending"]
        return {name: count for name, count in held.items() if count}

    async def _call(self, function: str, names: Sequence[str], args: Sequence[Argument]) -> Any:
        with redis_away_is_store_away():
            return await LIBRARY.call(self._redis, function, names, args)


def _age_s(entry_id: bytes, now_s: float) -> float:
    return max(0.0, round(now_s - int(entry_id.partition(b"-")[0]) / 1000, 3))
