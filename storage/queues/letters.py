"""Dead letters: entries of queues that were given up on, for people to look at, try again or drop."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.queues.entry import refusal
from storage.queues.server import LIBRARY

ENTRY_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
"""Anything else Redis refuses, or takes for more than one entry."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An entry that was given up on. Its id begins with when that was, in ms since the epoch.

    `task_id` and `user_id` are those of a task, None and "" where it was no task's entry.
    """

    id: str
    queue_id: str
    message: bytes
    cause: str
    deliveries: int
    task_id: str | None
    user_id: str

    @property
    def at_ms(self) -> int:
        """When it was given up on."""
        return int(self.id.partition("-")[0])


class DeadLetters:
    """The dead letters of all queues. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def counts(self, queue_ids: Sequence[str]) -> dict[str, int]:
        """How many each of the queues has."""
        pipeline = self._redis.pipeline(transaction=False)
        for queue_id in queue_ids:
            pipeline.xlen(keys.dead_letters(queue_id))
        with redis_away_is_store_away():
            return dict(zip(queue_ids, await pipeline.execute(), strict=True))

    async def of(self, queue_id: str, most: int) -> list[Letter]:
        """The oldest of a queue's."""
        with redis_away_is_store_away():
            rows: Any = await self._redis.xrange(keys.dead_letters(queue_id), count=most)
        return [_letter(queue_id, letter_id, fields) for letter_id, fields in rows]

    async def get(self, queue_id: str, letter_id: str) -> Letter | None:
        """One of a queue's; None where there is none of this id."""
        if not ENTRY_ID.fullmatch(letter_id):
            return None
        with redis_away_is_store_away():
            rows: Any = await self._redis.xrange(keys.dead_letters(queue_id), letter_id, letter_id)
        return _letter(queue_id, *rows[0]) if rows else None

    async def requeue(self, queue_id: str, letter_id: str) -> bool:
        """Append it to its queue again. False where it is gone. Raises Busy or UnknownQueue.

        Not for tasks: those have an order of their own (`Tasks.requeue`).
        """
        names = [
            queue_id, keys.queue_meta(queue_id), keys.queue_stats(queue_id), keys.dead_letters(queue_id)
        ]  # fmt: skip
        with redis_away_is_store_away():
            taken = await LIBRARY.call(self._redis, "queue_requeue", names, [letter_id])
        if taken is None:
            return False
        if taken != 1:
            raise refusal(queue_id, taken)
        return True

    async def drop(self, queue_id: str, letter_id: str) -> bool:
        """Throw it away. False where it is gone."""
        with redis_away_is_store_away():
            return bool(await self._redis.xdel(keys.dead_letters(queue_id), letter_id))


def _letter(queue_id: str, letter_id: bytes, fields: dict[bytes, bytes]) -> Letter:
    task_id = fields.get(b"t")
    return Letter(
        id=letter_id.decode(),
        queue_id=queue_id,
        message=fields[b"m"],
        cause=fields[b"cause"].decode(errors="replace"),
        deliveries=int(fields[b"deliveries"]),
        task_id=None if task_id is None else task_id.decode(),
        user_id=fields.get(b"u", b"").decode(),
    )
