"""Tasks as those who ask for them see them: accepting, asking, cancelling, and working on one again."""

import asyncio
from collections.abc import Sequence, Set
from typing import Any

from protocol.envelope import queue_create
from protocol.queues import Lane, QueueType
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.gathering import Gathering
from storage.queues import QueueServer
from storage.tasks.task import (
    LIBRARY,
    MOST_PER_CALL,
    Accepted,
    LostTask,
    NewTask,
    TaskNotFound,
    TaskOver,
    TaskState,
    WrongOffset,
    accepted,
    cost,
    state_of,
)
from storage.tickets import Record
from storage.wire import Argument, Executor

UNKNOWN_MEAN_MS = 1000
"""How long a task is taken to last before any of its kind has ended."""

NEVER_S = 315_360_000
"""An accepted task does not expire: ten years."""


class Tasks:
    """The tasks of one system. Raises StoreAway.

    `keep_s` is how long the end of a task can be asked for. `most_open` bounds the tasks of one user that are
    not over, `most_waiting` those of a kind.
    """

    def __init__(
        self,
        redis: Executor,
        queues: QueueServer,
        *,
        keep_s: float,
        most_open: int = 1000,
        most_waiting: int = 100_000,
    ) -> None:
        self._redis = redis
        self._queues = queues
        self._keep_ms = int(keep_s * 1000)
        self._most_open = most_open
        self._most_waiting = most_waiting
        self._gathered: dict[str, Gathering[NewTask, Accepted | Exception]] = {}

    async def create(self, task_type: str) -> None:
        """Create the queue of a kind, or give it these settings."""
        message = queue_create(
            "portal",
            keys.task_queue(task_type),
            QueueType.TASK,
            max_size=self._most_waiting,
            expire_s=NEVER_S,
        )
        await self._queues.create(message)

    # Accepting.

    async def submit(self, task_type: str, task: NewTask) -> Accepted:
        """Accept a task, together with all that are submitted in this turn of the loop.

        Raises TooManyTasks or TaskQueueFull.
        """
        gathered = self._gathered.get(task_type)
        if gathered is None:

            async def accept(tasks: Set[NewTask]) -> dict[NewTask, Accepted | Exception]:
                wanted = list(tasks)
                return dict(zip(wanted, await self.submit_many(task_type, wanted), strict=True))

            gathered = self._gathered[task_type] = Gathering(accept)
        answer = await gathered.get(task)
        assert answer is not None, "every task is answered"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit_many(self, task_type: str, tasks: Sequence[NewTask]) -> list[Accepted | Exception]:
        """Accept tasks; for each what became of it, a TooManyTasks or TaskQueueFull where it was refused."""
        answers: list[Accepted | Exception] = []
        for start in range(0, len(tasks), MOST_PER_CALL):
            some = tasks[start : start + MOST_PER_CALL]
            found = await self._submit(task_type, some)
            if not found:
                await self.create(task_type)  # Redis has lost it with everything else
                found = await self._submit(task_type, some)
            answers += map(accepted, found)
        return answers

    async def _submit(self, task_type: str, tasks: Sequence[NewTask]) -> Any:
        queue_id = keys.task_queue(task_type)
        names = [
            queue_id, keys.queue_meta(queue_id), keys.queue_stats(queue_id), keys.task_order(task_type),
            keys.task_shares(task_type), keys.task_pace(task_type), keys.PORTAL_UNSAVED,
        ]  # fmt: skip
        args: list[Argument] = [*self._prefixes, self._most_open, UNKNOWN_MEAN_MS, task_type]
        for task in tasks:
            record = (task.record.key, task.record.ttl_ms) if task.record is not None else ("", 0)
            held = "" if task.held_bytes is None else task.held_bytes
            args += (task.task_id, task.user_id, task.lane.value, cost(task.lane))
            args += (task.message, *record, held)
        return await self._call("task_submit", names, *args)

    async def advance(self, state: TaskState, offset: int, length: int) -> tuple[int, bool]:
        """Note that `length` bytes of a held task have come. Answers the next offset, and whether all have.

        With the last ones the task is accepted for work. Raises TaskNotFound, TaskOver or WrongOffset.
        """
        queue_id = keys.task_queue(state.task_type)
        names = [
            keys.task(state.task_id), queue_id, keys.queue_stats(queue_id), keys.task_order(state.task_type),
            keys.task_shares(state.task_type), keys.task_pace(state.task_type), keys.PORTAL_UNSAVED,
        ]  # fmt: skip
        lane = Lane(state.priority)
        answer = await self._call(
            "task_advance", names, state.task_id, state.user_id, offset, length, cost(lane)
        )
        match answer[0]:
            case b"missing":
                raise TaskNotFound
            case b"finished":
                raise TaskOver
            case b"offset":
                raise WrongOffset(answer[1])
        return answer[1], bool(answer[2])

    # Asking.

    async def get(self, task_id: str) -> TaskState | None:
        """A task as it is now; None when it is unknown here, or too long over."""
        return (await self.get_many([task_id]))[0]

    async def get_many(self, task_ids: Sequence[str]) -> list[TaskState | None]:
        """Tasks as they are now, each as `get` answers it."""
        reading = (self._redis.execute_command("HGETALL", keys.task(task_id)) for task_id in task_ids)
        with redis_away_is_store_away():
            rows = await asyncio.gather(*reading)
        return [state_of(task_id, row) for task_id, row in zip(task_ids, rows, strict=True)]

    async def of(self, user_id: str) -> list[str]:
        """The ids of a user's open tasks, the newest last."""
        with redis_away_is_store_away():
            task_ids = await self._redis.execute_command("SMEMBERS", keys.user_tasks(user_id))
        return sorted(task_id.decode() for task_id in task_ids)

    async def cancel(self, state: TaskState, record: Record) -> None:
        """End a task that is not over. Raises TaskNotFound or TaskOver."""
        queue_id = keys.task_queue(state.task_type)
        names = [
            keys.task(state.task_id), keys.user_tasks(state.user_id), queue_id, keys.queue_stats(queue_id),
            keys.task_order(state.task_type), keys.task_delayed(state.task_type), keys.PORTAL_UNSAVED,
            record.key,
        ]  # fmt: skip
        answer = await self._call(
            "task_cancel", names, state.task_id, state.user_id, self._keep_ms, record.ttl_ms
        )
        if answer == b"missing":
            raise TaskNotFound
        if answer == b"finished":
            raise TaskOver

    async def requeue(self, task_type: str, letter: str) -> str | None:
        """Work on a dead letter of a kind again. Answers its task's id; None when there is no such letter."""
        queue_id = keys.task_queue(task_type)
        names = [
            queue_id, keys.queue_stats(queue_id), keys.task_order(task_type), keys.task_shares(task_type),
            keys.task_pace(task_type), keys.PORTAL_UNSAVED, keys.dead_letters(queue_id),
        ]  # fmt: skip
        answer = await self._call("task_requeue", names, *self._prefixes, letter, cost(Lane.NORMAL))
        return None if answer is None else answer.decode()

    async def restore(self, task_type: str, tasks: Sequence[LostTask]) -> int:
        """Give Redis accepted tasks back that it has lost. Answers how many these were."""
        await self.create(task_type)
        queue_id, restored = keys.task_queue(task_type), 0
        names = [
            queue_id, keys.queue_stats(queue_id), keys.task_order(task_type), keys.task_shares(task_type),
            keys.task_pace(task_type),
        ]  # fmt: skip
        for start in range(0, len(tasks), MOST_PER_CALL):
            args: list[Argument] = [*self._prefixes, task_type]
            for lost in tasks[start : start + MOST_PER_CALL]:
                task = lost.task
                args += (task.task_id, task.user_id, task.lane.value, cost(task.lane))
                args += (task.message, lost.created_at, *(lost.upload or ("", 0)))
            restored += sum(await self._call("task_restore", names, *args))
        return restored

    # The rest.

    @property
    def _prefixes(self) -> tuple[str, str]:
        return keys.TASK_PREFIX, keys.USER_TASKS_PREFIX

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)
