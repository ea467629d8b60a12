"""Tasks as their workers see them: taking, holding, ending, trying again, giving up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.queues import GROUP
from storage.queues.server import LIBRARY as QUEUES
from storage.tasks.task import LIBRARY, MOST_PER_CALL, Ended, Harvest, Taken, TaskStatus, taken
from storage.wire import Argument, Executor


class TaskWork:
    """One consumer's share in the work on tasks. Raises StoreAway.

    `create` makes the queue of a kind where Redis has lost it. `keep_s` is how long the end of a task can be
    asked for.
    """

    def __init__(
        self, redis: Executor, consumer: str, create: Callable[[str], Awaitable[None]], *, keep_s: float
    ) -> None:
        self._redis = redis
        self._consumer = consumer
        self._create = create
        self._keep_ms = int(keep_s * 1000)

    async def take(self, task_type: str, most: int) -> Harvest:
        """Take the tasks whose turn it is, `most` at the utmost; they are this consumer's for the lease."""
        names = [
            keys.task_queue(task_type), keys.task_order(task_type), keys.task_delayed(task_type),
            keys.task_pace(task_type), keys.task_shares(task_type),
        ]  # fmt: skip
        args = (self._consumer, min(most, MOST_PER_CALL), keys.TASK_PREFIX)
        found = await self._unless_lost(task_type, self._call("task_take", names, *args))
        if found is None:
            return Harvest([], -1, b"0-0")
        entries, pause_ms, newest = found
        return Harvest([taken(entry, fields) for entry, fields in entries], pause_ms, newest)

    async def wait(self, blocking: Executor, task_type: str, newest: bytes, block_s: float) -> None:
        """Wait until there is an entry newer than `newest`, or for `block_s` seconds.

        `blocking` is a client of its own (`connect_blocking`).
        """
        block_ms = max(1, int(block_s * 1000))
        with redis_away_is_store_away():
            await blocking.execute_command(
                "XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", keys.task_queue(task_type), newest
            )

    async def finish(self, task_type: str, ended: Sequence[Ended]) -> list[bool]:
        """Note the ends of tasks; for each whether it counts, which it does not where it ended before."""
        queue_id = keys.task_queue(task_type)
        names = [queue_id, keys.queue_stats(queue_id), keys.task_pace(task_type), keys.PORTAL_UNSAVED]
        counted: list[bool] = []
        for start in range(0, len(ended), MOST_PER_CALL):
            args: list[Argument] = [*self._prefixes, self._keep_ms]
            for each in ended[start : start + MOST_PER_CALL]:
                args += (each.task.entry, each.task.task_id, each.task.user_id, each.status.value)
                args += (each.result, each.error, each.duration_ms)
            counted += map(bool, await self._call("task_finish", names, *args))
        return counted

    async def fail(
        self, task_type: str, task: Taken, cause: str, *, retries: int, pause_s: float
    ) -> TaskStatus | None:
        """Try a task again after a pause, or, after so many `retries`, give up on it; -1 gives up at once.

        Answers its status then, None where it has ended before.
        """
        queue_id = keys.task_queue(task_type)
        names = [
            queue_id, keys.queue_stats(queue_id), keys.task_delayed(task_type),
            keys.dead_letters(queue_id), keys.PORTAL_UNSAVED,
        ]  # fmt: skip
        answer = await self._call(
            "task_fail", names, *self._prefixes, self._keep_ms, task.entry, task.task_id, retries, cause,
            task.deliveries, int(pause_s * 1000),
        )  # fmt: skip
        return {b"again": TaskStatus.PENDING, b"dead": TaskStatus.FAILED}.get(answer)

    async def progress(self, percents: Mapping[str, int]) -> set[str]:
        """Note how far tasks are, in percent. Answers those for which that is news."""
        args = [part for pair in percents.items() for part in pair]
        answers = await self._call("task_progress", [], keys.TASK_PREFIX, *args)
        return {task_id for task_id, is_news in zip(percents, answers, strict=True) if is_news}

    async def renew(self, task_type: str, held: Sequence[bytes]) -> set[bytes]:
        """Keep holding these entries. Answers those that are not this consumer's any more."""
        if not held:
            return set()
        return set(await self._call("task_renew", [keys.task_queue(task_type)], self._consumer, *held))

    async def cancelled(self, task_ids: Sequence[str]) -> set[str]:
        """Those of the tasks that their user has given up."""
        asking = (self._redis.execute_command("HGET", keys.task(each), "status") for each in task_ids)
        with redis_away_is_store_away():
            found = await asyncio.gather(*asking)
        is_so = TaskStatus.CANCELLED.value.encode()
        return {task_id for task_id, status in zip(task_ids, found, strict=True) if status == is_so}

    async def claim(self, task_type: str, lease_s: float) -> Taken | None:
        """Take over one task that its consumer has not renewed for `lease_s` seconds."""
        queue_id = keys.task_queue(task_type)
        names = [queue_id, keys.queue_stats(queue_id)]
        args: list[Argument] = [GROUP, self._consumer, int(lease_s * 1000)]
        found = await self._unless_lost(task_type, QUEUES.call(self._redis, "queue_claim", names, args))
        return taken(*found) if found else None

    async def hand_back(self, task_type: str, held: Sequence[bytes]) -> set[bytes]:
        """Give tasks that were begun back: they are the next in line. Answers those that were held still."""
        if not held:
            return set()
        names = [keys.task_queue(task_type), keys.task_order(task_type), keys.task_pace(task_type)]
        return set(await self._call("task_hand_back", names, self._consumer, keys.TASK_PREFIX, *held))

    async def leave(self, task_type: str) -> None:
        """Stop being a consumer, where nothing is held any more."""
        await QUEUES.call(self._redis, "queue_leave", [keys.task_queue(task_type)], [GROUP, self._consumer])

    async def _unless_lost(self, task_type: str, asking: Awaitable[Any]) -> Any:
        """What `asking` answers; None where Redis has lost the queue, which is made again."""
        try:
            return await asking
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        await self._create(task_type)
        return None

    @property
    def _prefixes(self) -> tuple[str, str]:
        return keys.TASK_PREFIX, keys.USER_TASKS_PREFIX

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)
