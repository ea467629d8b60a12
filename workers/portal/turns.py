"""A file's chunks one after the other, also where several come at a time: each waits for the one before."""

import asyncio
from collections import defaultdict
from dataclasses import replace

from storage.tasks import Tasks, TaskState

AHEAD_BYTES = 4 * 2**20
"""How far ahead of its turn a chunk may come."""

TURN_S = 1.0
"""How long a chunk waits for its turn."""

LOOK_S = 0.01
"""How soon it is noticed that another worker has taken the chunk before."""

MOST_WAITING = 64
"""Chunks that wait in one worker, so that there is room for what need not wait."""


class Turns:
    """Who waits in this worker, and for what. Raises StoreAway."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._waiting: dict[str, set[asyncio.Future[int]]] = defaultdict(set)
        self._count = 0

    def reached(self, task_id: str, offset: int) -> None:
        """Note that the bytes up to `offset` are there."""
        for waiting in self._waiting.get(task_id, ()):
            if not waiting.done():
                waiting.set_result(offset)

    async def come(self, state: TaskState, offset: int) -> TaskState:
        """The task's state when it is the turn of the bytes at `offset`, or when that does not come."""
        if not _is_ahead(state, offset) or self._count >= MOST_WAITING:
            return state
        self._count += 1
        try:
            async with asyncio.timeout(TURN_S):
                while _is_ahead(state, offset):
                    state = await self._news(state)
        except TimeoutError:
            pass
        finally:
            self._count -= 1
        return state

    async def _news(self, state: TaskState) -> TaskState:
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[state.task_id].add(waiting)
        try:
            done, _ = await asyncio.wait([waiting], timeout=LOOK_S)
        finally:
            self._waiting[state.task_id].discard(waiting)
            if not self._waiting[state.task_id]:
                del self._waiting[state.task_id]
        if done:
            return replace(state, upload_offset=waiting.result())
        return await self._tasks.get(state.task_id) or state


def _is_ahead(state: TaskState, offset: int) -> bool:
    return state.upload_offset is not None and 0 < offset - state.upload_offset <= AHEAD_BYTES
