"""The survey: walks the waiting room, tells players their places and clears away the abandoned.

One login worker at a time walks, holding a lease; the next takes over when it dies.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog
from msgspec import UNSET

from protocol.connection import event_frame
from protocol.envelope import Delivery
from protocol.messages.waiting import QueueUpdate
from runtime.waiting import cancel
from storage.admission import AdmissionSettings
from storage.errors import StoreAway
from storage.queues import Outbox
from storage.tickets import Survey as Walk, Tickets
from workers.login.admission import Admission, tell_expired

log = structlog.get_logger(__name__)

LEAST_S = 1.9
"""Between two updates of one player: the 2 s that players are promised, less what a walk may be early."""

NEWS_S = 12.0
"""Who waits hears something after this time, if everything goes well: 3 s before the 15 that it may take."""

FAR_PERIOD_S = 8.0
"""The whole room is walked once in this time, in the order of the line: whoever moves up meanwhile is met as
early as one who stands, and nobody is missed."""

NEAR_PERIOD_S = 2.0
NEAR_WAIT_S = 60.0
NEAR_LEAST, NEAR_MOST = 100, 2000
"""Near the head is who has less than NEAR_WAIT_S to wait, within these bounds."""

STEP_PLACES = 250
"""Places that one call looks at: it keeps Redis for 3 ms then."""

STEPS_UNDER_WAY = 8
"""Steps that are begun when it is time, though earlier ones are not answered yet: on a busy machine an answer
takes 0.1 s, and a room of 100,000 has 50 steps a second. Others wait for no more of them than these."""

LEASE_S = 3.0
UNTOLD_S = 1.0
UNTOLD_MOST = 200


def told_s(wait_s: float | None) -> int | None:
    """A wait in whole seconds, as players are told it; None while it is unknown."""
    return None if wait_s is None else math.ceil(wait_s)


class Survey:
    """Tells places, for as long as this worker holds the lease."""

    def __init__(
        self,
        tickets: Tickets,
        outbox: Outbox,
        admission: Admission,
        boot_id: str,
        settings: AdmissionSettings,
        configure: Callable[[], Awaitable[None]],
    ) -> None:
        self._tickets = tickets
        self._settings = settings
        self._configure = configure
        self._outbox = outbox
        self._admission = admission
        self._boot_id = boot_id
        self._rate = 0.0
        self._waiting = 0

    async def run(self) -> None:
        """Walk for as long as the process lives. Runs as a side task."""
        while True:
            try:
                await self._walk_room()
            except StoreAway as error:
                log.warning("cannot survey the waiting room", cause=str(error))
            await asyncio.sleep(LEASE_S / 3)

    async def _walk_room(self) -> None:
        """Walk the near places, and all of them besides, for as long as this worker leads."""
        if not await self._leads():
            return
        walks = {asyncio.create_task(self._walk_near()), asyncio.create_task(self._walk_all())}
        try:
            ended, _ = await asyncio.wait(walks, return_when=asyncio.FIRST_COMPLETED)
            for walk in ended:
                walk.result()
        finally:
            await cancel(walks)

    async def _leads(self) -> bool:
        return await self._tickets.lead_survey(self._boot_id, LEASE_S)

    async def _walk_near(self) -> None:
        """Walk the near places once in NEAR_PERIOD_S, in even steps: many at once would hold admission up."""
        clock = asyncio.get_running_loop().time
        while True:
            due_s, steps = clock(), await self._near()
            await self._retell()
            for step in steps:
                await self._walk(*step)
                due_s += NEAR_PERIOD_S / len(steps)
                await asyncio.sleep(max(0.0, due_s - clock()))
            if not await self._leads():
                return

    async def _walk_all(self) -> None:
        """Walk the whole room once in FAR_PERIOD_S."""
        clock = asyncio.get_running_loop().time
        walking: set[asyncio.Task[None]] = set()
        due_s = clock()
        try:
            while True:
                steps = max(1, math.ceil(self._waiting / STEP_PLACES))
                step_s = min(FAR_PERIOD_S / steps, 1.0)
                # What was missed is made good: a long room is walked in time on a busy machine, too.
                due_s = max(due_s, clock() - 1.0)
                while due_s <= clock() and len(walking) < STEPS_UNDER_WAY:
                    # Told again unless the next walk still is in time.
                    again_s = max(LEAST_S, NEWS_S - steps * step_s)
                    walking.add(asyncio.create_task(self._walk(None, again_s)))
                    due_s += step_s
                done, walking = await _first_done(walking, max(0.0, due_s - clock()), STEPS_UNDER_WAY)
                for step in done:
                    step.result()
        finally:
            await cancel(walking)

    async def _near(self) -> list[tuple[int, float]]:
        """The steps of those near the head, each with the time after which it tells the same place again."""
        self._rate = await self._current_rate()
        near = min(max(int(self._rate / 60 * NEAR_WAIT_S), NEAR_LEAST), NEAR_MOST)
        return [(start, NEWS_S - NEAR_PERIOD_S) for start in reversed(range(0, near, STEP_PLACES))]

    async def _current_rate(self) -> float:
        """How many are admitted a minute, set anew where Redis has lost it with everything else.

        Where 0 is what an operator wants, to configure changes nothing.
        """
        rate = await self._settings.current()
        if not rate:
            await self._configure()
            rate = await self._settings.current()
        return rate

    async def _walk(self, first: int | None, again_s: float) -> None:
        """Walk one step, None is the next: tell places that are new, or were told `again_s` ago."""
        walk = await self._tickets.survey(first, STEP_PLACES, LEAST_S, again_s)
        self._waiting = walk.total_waiting
        self._tell(walk)

    def _tell(self, walk: Walk) -> None:
        for told in walk.updates:
            update = QueueUpdate(
                position=told.position,
                estimated_wait_sec=told_s(told.wait_s),
                estimated_wait_p90_sec=told_s(told.p90_s),
                total_waiting=walk.total_waiting,
                reason=UNSET if told.reason is None else told.reason,
                opens_at=walk.opens_at or UNSET,
            )
            self._outbox.deliver(
                told.owner.server_id, Delivery(told.owner.connection_id, event_frame(update))
            )
        for ended in walk.expired:
            tell_expired(self._outbox, ended)

    async def _retell(self) -> None:
        """READY again for those whose admitting worker died before it told them."""
        for admitted in await self._tickets.untold(UNTOLD_S, UNTOLD_MOST):
            self._admission.tell(admitted)


async def _first_done(
    walking: set[asyncio.Task[None]], pause_s: float, most: int
) -> tuple[set[asyncio.Task[None]], set[asyncio.Task[None]]]:
    """Wait for the first that is done, but no longer than `pause_s` while fewer than `most` are under way."""
    if not walking:
        await asyncio.sleep(pause_s)
        return set(), walking
    timeout_s = pause_s if len(walking) < most else None
    return await asyncio.wait(walking, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
