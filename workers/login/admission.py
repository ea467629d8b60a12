"""The admission loop: asks the token bucket, and tells those whose turn it is.

Any number of login workers run one; the Function keeps them together within the rate.
"""

import asyncio
import math

import structlog
from prometheus_client import Histogram

from protocol.connection import event_frame
from protocol.envelope import Address, Delivery
from protocol.messages.waiting import QueueExpired, QueueReady
from storage.errors import StoreAway
from storage.queues import Outbox, UnknownQueue
from storage.tickets import Admission as Outcome, Admitted, Ended, Tickets

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 250
"""Tickets of a kind that one call changes: all that may come in at once at 2,000 a second, so that nothing
is missed by a late step. It keeps Redis for 7 ms then, and others wait meanwhile."""

SHORTEST_S = 0.02
"""Between two calls: finer than a player can feel, coarse enough for many workers."""

IDLE_S = 0.1
"""Between two calls while nobody waits or may come in; a login at this worker wakes the loop at once.
Permission is kept for as long for who is late (`BURST_MS` in pace.lua), so nothing of a new rate is lost."""


ESTIMATE_ERROR = Histogram(
    "lobbyd_estimate_error_seconds",
    "How long before or after the time that they were first told players' turns came.",
    ["direction"],
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)
"""Of those who were told a wait at the rate at which their turn came; `direction` is `early` or `late`."""


class Admission:
    """Makes tickets READY at the set rate. `waiting` is how many were in line at the last look."""

    def __init__(self, tickets: Tickets, outbox: Outbox, deadline_s: float) -> None:
        self._tickets = tickets
        self._outbox = outbox
        self._deadline_s = deadline_s
        self._told: list[str] = []
        self._wake = asyncio.Event()
        self.waiting = 0

    def wake(self) -> None:
        """Somebody came: look at once, should the room have been empty."""
        if not self.waiting:
            self._wake.set()

    async def run(self) -> None:
        """Admit for as long as the process lives. Runs as a side task."""
        while True:
            try:
                pause_s = await self._admit()
            except StoreAway as error:
                log.warning("cannot admit", cause=str(error))
                pause_s = IDLE_S
            self._wake.clear()
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _admit(self) -> float:
        told, self._told = self._told, []
        outcome, _ = await asyncio.gather(
            self._tickets.admit(MOST_AT_ONCE, self._deadline_s), self._tickets.told(told)
        )
        for admitted in outcome.admitted:
            self.tell(admitted)
            if admitted.late_s is not None:
                direction = "late" if admitted.late_s > 0 else "early"
                ESTIMATE_ERROR.labels(direction).observe(abs(admitted.late_s))
        for ended in outcome.expired:
            tell_expired(self._outbox, ended)
        self.waiting = outcome.waiting
        return _pause_s(outcome)

    def tell(self, admitted: Admitted) -> None:
        """Send QUEUE_READY to the connection that streams the ticket, if one does."""
        if admitted.owner is None:
            return

        def done(error: Exception | None) -> None:
            # A node that is gone takes its connections with it: they will ask when they are back.
            if error is None or isinstance(error, UnknownQueue):
                self._told.append(admitted.tid)

        self._outbox.deliver(
            admitted.owner.server_id, ready(admitted.owner, admitted.tid, admitted.deadline_s), done
        )


def ready(owner: Address, tid: str, deadline_s: float) -> Delivery:
    """QUEUE_READY for a connection; told twice, it is seen once."""
    frame = event_frame(QueueReady(tid=tid, finalize_deadline_sec=math.floor(deadline_s)))
    return Delivery(owner.connection_id, frame, once=tid)


def tell_expired(outbox: Outbox, ended: Ended) -> None:
    """Send QUEUE_EXPIRED to the connection that streams the ticket, if one does."""
    if ended.owner is not None:
        frame = event_frame(QueueExpired(tid=ended.tid, reason=ended.reason))
        outbox.deliver(ended.owner.server_id, Delivery(ended.owner.connection_id, frame))


def _pause_s(outcome: Outcome) -> float:
    if outcome.pause_s is None:
        return IDLE_S
    if len(outcome.admitted) >= MOST_AT_ONCE:
        return 0.0
    return min(max(outcome.pause_s, SHORTEST_S), IDLE_S)
