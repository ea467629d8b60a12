"""The task engine: a line for each kind, kept alive, in time and in step with Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog

from storage.errors import StoreAway
from storage.tasks import TaskWork
from storage.wire import Wire
from workers.portal.kinds import Kinds
from workers.portal.line import Line, Tell

log = structlog.get_logger(__name__)

R = TypeVar("R")

PROGRESS_S = 0.2
"""Progress is told at most five times a second."""

LOOK_S = 0.2
CANCEL_S = 1.0
"""How soon, at the latest, a worker learns that a task of its was cancelled."""

DRAIN_S = 15.0
"""What tasks under way get to come to their end before they are given back."""

Watch = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Engine(Generic[R]):
    """Does tasks. `connect` makes a connection for reads that block: each kind has one."""

    def __init__(
        self,
        kinds: Kinds[R],
        room: R,
        work: TaskWork,
        connect: Callable[[], Wire],
        tell: Tell,
        *,
        lease_s: float,
        max_deliveries: int,
    ) -> None:
        self._work = work
        self._lease_s = lease_s
        self._blocking = {kind.name: connect() for kind in kinds}
        self._lines = {
            kind.name: Line(kind, room, work, self._blocking[kind.name], tell, max_deliveries)
            for kind in kinds
        }
        self._taking: list[asyncio.Task[None]] = []

    async def start(self, watch: Watch) -> None:
        """Begin to take tasks. `watch` runs side tasks."""
        for name, line in self._lines.items():
            self._taking.append(watch(line.take(), f"{name} tasks"))
            watch(line.end(), f"{name} ends")
        watch(self._repeat(self._renew, min(CANCEL_S, self._lease_s / 3)), "task leases")
        watch(self._repeat(self._retry, self._lease_s / 2), "task retries")
        watch(self._repeat(self._tell_progress, PROGRESS_S), "task progress")
        watch(self._repeat(self._end_overdue, LOOK_S), "task time limits")

    async def stop(self) -> None:
        """Take no more; finish what is under way, and give back what takes too long."""
        for line in self._lines.values():
            line.stop()
        finishing = [asyncio.ensure_future(line.finished()) for line in self._lines.values()]
        _, unfinished = await asyncio.wait(finishing, timeout=DRAIN_S)
        for name, line in self._lines.items():
            try:
                await line.hand_back()
                await self._work.leave(name)
            except StoreAway as error:
                log.warning("cannot give tasks back", kind=name, cause=str(error))
        for waiting in unfinished:
            waiting.cancel()
        await asyncio.wait(self._taking)
        for blocking in self._blocking.values():
            await blocking.aclose()

    async def _repeat(self, action: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await action()
            except StoreAway as error:
                log.warning("cannot look after tasks", cause=str(error))

    async def _retry(self) -> None:
        """Kind after kind, so that what kills workers is alone with none but fresh tasks when it does."""
        for line in self._lines.values():
            await line.retry(self._lease_s)

    async def _renew(self) -> None:
        for line in self._lines.values():
            await line.renew(CANCEL_S / 2)

    async def _tell_progress(self) -> None:
        for line in self._lines.values():
            await line.tell_progress()

    async def _end_overdue(self) -> None:
        for line in self._lines.values():
            line.end_overdue()
