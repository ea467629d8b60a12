"""The survey: walks the waiting room, tells players their places and clears away the abandoned.

One login worker at a time walks, holding a lease; the next takes over when it dies.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec import UNSET

from protocol.connection import event_frame
from protocol.envelope import Delivery
from protocol.messages.waiting import QueueUpdate
from storage.admission import AdmissionSettings
from storage.errors import StoreAway
from storage.queues import Outbox
from storage.tickets import Survey as Walk, Tickets
from workers.login.admission import Admission, tell_expired

log = structlog.get_logger(__name__)

LEAST_S = 1.9
"""Between two updates of one player: the 2 s of wire.md, less what a walk may be early."""

NEWS_S = 12.0
"""Who waits hears something after this time, if everything goes well: 3 s before the 15 that it may take."""

FAR_PERIOD_S = 10.0
"""The whole room is walked once in this time."""

NEAR_PERIOD_S = 2.0
NEAR_WAIT_S = 60.0
NEAR_LEAST, NEAR_MOST = 100, 2000
"""Near the head is who has less than NEAR_WAIT_S to wait, within these bounds."""

STEP_PLACES = 250
"""Places that one call looks at: it keeps Redis for 3 ms then."""

STEPS_AT_ONCE = 4
"""Steps that are asked for together, where a walk is late: on a busy machine an answer takes its time."""

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

    async def run(self) -> None:
        """Walk for as long as the process lives. Runs as a side task."""
        while True:
            try:
                await self._walk_room()
            except StoreAway as error:
                log.warning("cannot survey the waiting room", cause=str(error))
            await asyncio.sleep(LEASE_S / 3)

    async def _walk_room(self) -> None:
        """The near places every NEAR_PERIOD_S, all of them once in FAR_PERIOD_S, in steps between."""
        clock = asyncio.get_running_loop().time
        first, total = 0, 0
        near_s = due_s = clock()
        while True:
            if clock() >= near_s:
                near_s = clock() + NEAR_PERIOD_S
                if not await self._tickets.lead_survey(self._boot_id, LEASE_S):
                    return
                self._rate = await self._current_rate()
                near = min(max(int(self._rate / 60 * NEAR_WAIT_S), NEAR_LEAST), NEAR_MOST)
                total = await self._walk(list(reversed(range(0, near, STEP_PLACES))), NEWS_S - NEAR_PERIOD_S)
                await self._retell()
            steps = max(1, math.ceil(total / STEP_PLACES))
            step_s = min(FAR_PERIOD_S / steps, 1.0)
            # What was missed is made good: a long room is walked in time on a busy machine, too.
            due_s = max(due_s, clock() - 1.0)
            firsts: list[int] = []
            while due_s <= clock() and len(firsts) < STEPS_AT_ONCE:
                # From the back to the front: who moves up meanwhile is met twice at worst, never not at all.
                first = max(0, min(first or total, total) - STEP_PLACES)
                firsts.append(first)
                due_s += step_s
            # Told again unless the next walk still is in time.
            total = await self._walk(firsts, max(LEAST_S, NEWS_S - steps * step_s)) if firsts else total
            await asyncio.sleep(max(0.0, min(due_s, near_s) - clock()))

    async def _current_rate(self) -> float:
        """How many are admitted a minute, set anew where Redis has lost it with everything else.

        Where 0 is what an operator wants, to configure changes nothing.
        """
        rate = await self._settings.current()
        if not rate:
            await self._configure()
            rate = await self._settings.current()
        return rate

    async def _walk(self, firsts: Sequence[int], again_s: float) -> int:
        """Walk the steps that begin at these ranks; tell places that are new, or told `again_s` ago.

        Answers how many wait.
        """
        total = 0
        for start in range(0, len(firsts), STEPS_AT_ONCE):
            together = firsts[start : start + STEPS_AT_ONCE]
            walks = (self._tickets.survey(first, STEP_PLACES, LEAST_S, again_s) for first in together)
            for walk in await asyncio.gather(*walks):
                self._tell(walk)
                total = walk.total_waiting
        return total

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
