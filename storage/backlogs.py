"""The noun "backlog": what waits in a queue, as operators see and clear it."""

import time
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from protocol.queues import QueueType
from storage import keys
from storage.audit import as_field
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.queues import UnknownQueue

LIBRARY = Library("audit", "backlogs")

BATCH = 1_000
"""Entries that one call is about: Redis answers nobody else meanwhile."""

_KEPT = frozenset(kind.label for kind in QueueType if kind.keeps_expired)


class KeptQueue(Exception):
    """What lies in this queue was promised to somebody: it is not thrown away."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry. `holder` is the consumer that works on it, or None."""

    entry_id: str
    age_sec: float
    message: bytes
    deliveries: int = 0
    holder: str | None = None


class Backlogs:
    """The backlogs of one system. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def peek(self, name: str, most: int) -> list[Waiting]:
        """The oldest entries. Raises UnknownQueue."""
        await self._kind(name)
        now_ms = time.time() * 1000
        with redis_away_is_store_away():
            rows: Any = await self._redis.xrange(name, count=most)
            held = await self._held(name, rows) if rows else {}
        found = []
        for entry_id, fields in rows:
            holder, deliveries = held.get(entry_id, (None, 0))
            age_sec = max(0.0, round((now_ms - int(entry_id.partition(b"-")[0])) / 1000, 3))
            found.append(Waiting(entry_id.decode(), age_sec, fields[b"m"], deliveries, holder))
        return found

    async def purge(self, name: str, operator: str) -> int:
        """Remove what nobody works on yet. Answers how many.

        Raises UnknownQueue, and KeptQueue for a queue whose entries were promised to somebody.
        """
        kind = await self._kind(name)
        if kind in _KEPT:
            raise KeptQueue(
                f"What waits in {name} was accepted and is promised to be done: it is not thrown away. "
                f"What cannot be done ends in {keys.dead_letters(name)}, for `lobbyctl dead-letters`."
            )
        names = [name, keys.queue_stats(name), keys.AUDIT_LOGS, keys.AUDIT_PENDING]
        total = 0
        while True:
            count = int(
                await LIBRARY.call(self._redis, "backlog_purge", names, [name, BATCH, as_field(operator)])
            )
            total += max(0, count)
            if count < BATCH:
                return total

    async def _kind(self, name: str) -> str:
        with redis_away_is_store_away():
            kind: Any = await self._redis.hget(keys.queue_meta(name), "queueType")
        if kind is None:
            raise UnknownQueue(f"There is no queue {name}: see `lobbyctl queue ls`.")
        return str(kind.decode())

    async def _held(self, name: str, rows: Any) -> dict[bytes, tuple[str, int]]:
        found = {}
        for group in await self._redis.xinfo_groups(name):
            pending: Any = await self._redis.xpending_range(
                name, group["name"].decode(), rows[0][0], rows[-1][0], len(rows)
            )
            for each in pending:
                found[each["message_id"]] = each["consumer"].decode(), each["times_delivered"]
        return found
