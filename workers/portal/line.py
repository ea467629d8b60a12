"""One kind's tasks in one worker: taken as there is room, done, ended together.

A task that its worker cannot end is claimed by another after the lease and done again alone, and after
`max_deliveries` it becomes a dead letter: as `workers/consumer.py` does it for requests.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from storage.errors import StoreAway
from storage.tasks import Ended, Taken, TaskStatus, TaskWork
from storage.wire import Executor
from workers.portal.kinds import Context, Kind, Refused

log = structlog.get_logger(__name__)

R = TypeVar("R")

BLOCK_S = 0.5
AWAY_PAUSE_S = 0.2
MAX_CAUSE_LENGTH = 500
ALONE_S = 10.0
"""What is tried again is alone for so long: what kills its worker does so by then, slow work goes on."""
MOST_UNCOMMITTED = 4
"""Times a kind's concurrency: tasks that are done may wait for Redis to know it, while others are begun."""


class Change(msgspec.Struct, frozen=True):
    """What is to be told of a task: to whom, and its state."""

    user_id: str
    task_id: str
    status: TaskStatus
    progress: int = 0
    result: Any = None
    error: str | None = None


Tell = Callable[[Sequence[Change]], None]


class _Run:
    """A task under way."""

    __slots__ = ("began_s", "context", "input", "is_lost", "is_overdue", "result", "taken", "task")

    def __init__(self, taken: Taken, began_s: float) -> None:
        self.taken = taken
        self.began_s = began_s
        self.is_lost = self.is_overdue = False
        self.result: Any = None
        self.input: Any = None
        self.context: Any = None
        self.task: asyncio.Task[None] | None = None


class Line(Generic[R]):
    """One kind in one worker. `tell` is called with what changed, in order."""

    def __init__(
        self, kind: Kind[R], room: R, work: TaskWork, blocking: Executor, tell: Tell, max_deliveries: int
    ) -> None:
        self._kind = kind
        self._room = room
        self._work = work
        self._blocking = blocking
        self._tell = tell
        self._max_deliveries = max_deliveries
        self._decoder = msgspec.msgpack.Decoder(kind.input)
        self._held: dict[bytes, _Run] = {}
        self._running = 0
        self._ended: list[tuple[_Run, Ended]] = []
        self._failed: list[tuple[_Run, str, int]] = []
        self._lost: list[_Run] = []
        self._percents: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._stopping = False
        self._clock = asyncio.get_running_loop().time

    # What the engine runs.

    async def take(self) -> None:
        """Take tasks and begin them until `stop`. Runs as a side task, and is never cancelled in a read."""
        while not self._stopping:
            limits = self._kind.limits
            free = min(
                limits.concurrency - self._running, MOST_UNCOMMITTED * limits.concurrency - len(self._held)
            )
            if free <= 0:
                await self._next_change()
                continue
            try:
                await self._take(free)
            except StoreAway as error:
                log.warning("cannot take tasks", kind=self._kind.name, cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)

    async def end(self) -> None:
        """Note the ends of tasks, all that gathered at a time. Ends by being cancelled."""
        while True:
            await self._over.wait()
            self._over.clear()
            ended, self._ended = self._ended, []
            failed, self._failed = self._failed, []
            if ended:
                await self._finish(ended)
            lost, self._lost = self._lost, []
            if lost:
                await self._drop(lost)
            for run, cause, retries in failed:
                await self._fail(run, cause, retries)
            self._changed.set()

    async def renew(self, since_s: float) -> None:
        """Keep what has been held for `since_s` seconds; stop what is not ours any more. Raises StoreAway."""
        old = self._clock() - since_s
        held = [entry for entry, run in self._held.items() if run.began_s <= old]
        for entry in await self._work.renew(self._kind.name, held):
            run = self._held.get(entry)
            if run is not None and run.task is not None and not run.task.done():
                run.is_lost = True
                run.task.cancel()

    def end_overdue(self) -> None:
        """Stop what takes longer than it may."""
        overdue_s = self._clock() - self._kind.limits.time_limit_s
        for run in self._held.values():  # in the order in which they began
            if run.began_s > overdue_s:
                return
            if run.task is not None and not run.task.done():
                run.is_overdue = True
                run.task.cancel()

    async def tell_progress(self) -> None:
        """Note and tell how far tasks are. Raises StoreAway."""
        percents, self._percents = self._percents, {}
        if not percents:
            return
        users = {run.taken.task_id: run.taken.user_id for run in self._held.values()}
        news = await self._work.progress(percents)
        self._tell(
            [
                Change(users[task_id], task_id, TaskStatus.PROCESSING, percents[task_id])
                for task_id in news
                if task_id in users
            ]
        )

    async def retry(self, lease_s: float) -> None:
        """Do what others left, one at a time; give up on what killed them. Raises StoreAway."""
        while not self._stopping:
            taken = await self._work.claim(self._kind.name, lease_s)
            if taken is None:
                return
            run = _Run(taken, self._clock())
            if taken.deliveries > self._max_deliveries:
                self._held[taken.entry] = run
                await self._fail(run, f"whoever worked on it died, {taken.deliveries - 1} times", -1)
                continue
            self._begin(run)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALONE_S):
                    while taken.entry in self._held:
                        await self._next_change()

    def stop(self) -> None:
        """Take no more."""
        self._stopping = True
        self._changed.set()

    async def finished(self) -> None:
        """Wait until nothing is held."""
        while self._held:
            await self._next_change()

    async def hand_back(self) -> None:
        """Stop what is under way and give it back. Raises StoreAway."""
        runs = [run for run in self._held.values() if run.task is not None and not run.task.done()]
        tasks = [run.task for run in runs if run.task is not None]
        for run, task in zip(runs, tasks, strict=True):
            run.is_lost = True
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        given = await self._work.hand_back(self._kind.name, [run.taken.entry for run in runs])
        back = [run.taken for run in runs if run.taken.entry in given]
        self._tell([Change(taken.user_id, taken.task_id, TaskStatus.PENDING) for taken in back])

    # The rest.

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _take(self, most: int) -> None:
        harvest = await self._work.take(self._kind.name, most)
        now_s = self._clock()
        if harvest.tasks:
            self._tell([Change(task.user_id, task.task_id, TaskStatus.PROCESSING) for task in harvest.tasks])
        for taken in harvest.tasks:
            self._begin(_Run(taken, now_s))
        if not harvest.tasks:
            pause_s = BLOCK_S if harvest.pause_ms < 0 else min(BLOCK_S, harvest.pause_ms / 1000)
            await self._work.wait(self._blocking, self._kind.name, harvest.newest, pause_s)

    def _begin(self, run: _Run) -> None:
        taken = run.taken
        self._held[taken.entry] = run
        try:
            run.input = self._decoder.decode(taken.message)
        except msgspec.MsgspecError as error:
            self._failed.append((run, f"its input cannot be read: {error}", -1))
            self._over.set()
            return
        run.context = Context(self._room, taken.task_id, taken.user_id, self._note_progress)
        self._running += 1
        run.task = asyncio.get_running_loop().create_task(self._do(run))

    async def _do(self, run: _Run) -> None:
        taken = run.taken
        try:
            run.result = await self._kind.run(run.context, run.input)
            result = msgspec.json.encode(run.result)
        except Refused as error:
            self._ended.append((run, Ended(taken, TaskStatus.FAILED, error=str(error)[:MAX_CAUSE_LENGTH])))
        except asyncio.CancelledError:
            if run.is_overdue:
                limit_s = self._kind.limits.time_limit_s
                self._failed.append((run, f"it took longer than {limit_s:g} s", self._kind.limits.retries))
            elif run.is_lost:
                self._lost.append(run)
            else:
                raise
        except Exception as error:
            self._note_failure(run, error)
        else:
            duration_ms = (self._clock() - run.began_s) * 1000
            self._ended.append((run, Ended(taken, TaskStatus.COMPLETED, result, duration_ms=duration_ms)))
        finally:
            self._running -= 1
            self._over.set()
            self._changed.set()

    def _note_failure(self, run: _Run, error: Exception) -> None:
        cause = f"{type(error).__name__}: {error}"[:MAX_CAUSE_LENGTH]
        if isinstance(error, (StoreAway, OSError)):
            log.warning("a task failed", kind=self._kind.name, task=run.taken.task_id, cause=cause)
        else:
            log.error("a task failed", kind=self._kind.name, task=run.taken.task_id, exc_info=error)
        self._failed.append((run, cause, self._kind.limits.retries))

    def _note_progress(self, task_id: str, percent: int) -> None:
        self._percents[task_id] = percent

    async def _undo(self, run: _Run) -> None:
        if self._kind.undo is None or run.input is None:
            return
        try:
            await self._kind.undo(run.context, run.input)
        except Exception as error:
            log.error("cannot undo", kind=self._kind.name, task=run.taken.task_id, exc_info=error)

    async def _finish(self, ended: list[tuple[_Run, Ended]]) -> None:
        ends = [end for _, end in ended]
        counted = await self._until_noted(lambda: self._work.finish(self._kind.name, ends))
        changes = []
        for (run, end), counts in zip(ended, counted, strict=True):
            if not counts:
                self._lost.append(run)
                continue
            self._forget(run)
            progress, error = (0, end.error) if end.status is TaskStatus.FAILED else (100, None)
            changes.append(
                Change(run.taken.user_id, run.taken.task_id, end.status, progress, run.result, error)
            )
            if end.status is TaskStatus.FAILED:
                await self._undo(run)
        self._tell(changes)

    async def _drop(self, lost: list[_Run]) -> None:
        """Undo what was cancelled meanwhile; what another worker has done or does now is left alone."""
        task_ids = [run.taken.task_id for run in lost]
        cancelled = await self._until_noted(lambda: self._work.cancelled(task_ids))
        for run in lost:
            self._forget(run)
            if run.taken.task_id in cancelled:
                await self._undo(run)

    def _forget(self, run: _Run) -> None:
        self._held.pop(run.taken.entry, None)
        self._percents.pop(run.taken.task_id, None)

    async def _fail(self, run: _Run, cause: str, retries: int) -> None:
        limits = self._kind.limits
        pause_s = limits.backoff_s * 2 ** (run.taken.deliveries - 1) * random.uniform(0.5, 1.0)
        status = await self._until_noted(
            lambda: self._work.fail(self._kind.name, run.taken, cause, retries=retries, pause_s=pause_s)
        )
        self._forget(run)
        if status is TaskStatus.FAILED:
            log.error("given up", kind=self._kind.name, task=run.taken.task_id, cause=cause)
            await self._undo(run)
        if status is not None:
            error = cause if status is TaskStatus.FAILED else None
            self._tell([Change(run.taken.user_id, run.taken.task_id, status, error=error)])

    async def _until_noted(self, note: Callable[[], Any]) -> Any:
        """What `note` answers, however long Redis is away: what was done must not be done again in vain."""
        while True:
            try:
                return await note()
            except StoreAway as error:
                log.warning("cannot note what became of tasks", kind=self._kind.name, cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)
