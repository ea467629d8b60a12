"""The waiting room as its players see it (docs/protocol.md, "From login to game")."""

from enum import Enum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from protocol.errors import SESSION_TAKEN_OVER, TICKET_NOT_FOUND
from protocol.messages.declaration import Access, Message, event, request
from protocol.queues import Lane

TicketId = Annotated[str, Meta(min_length=1, max_length=128)]
ClientId = Annotated[str, Meta(min_length=1, max_length=64)]


class TicketStatus(Enum):
    """Where a ticket is in its life."""

    PENDING = "PENDING"
    READY = "READY"
    CONSUMED = "CONSUMED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class Place(Message, frozen=True):
    """A ticket's place. `position` counts from 1, 0 once READY; the estimate is null while unknown.

    `opensAt` is there before an opening. Places are drawn then; before, `position` is the last of the tier.
    """

    status: TicketStatus
    position: int
    total_waiting: int
    estimated_wait_sec: int | None
    opens_at: int | UnsetType = UNSET


@request(
    "queue.stream",
    owner="login",
    reply=Place,
    access=Access.CONNECTED,
    lane=Lane.HIGH,
    errors=(TICKET_NOT_FOUND, SESSION_TAKEN_OVER),
)
class Stream(Message, frozen=True):
    """Get the ticket's events on this connection; an older connection that had them is kicked out."""

    tid: TicketId
    client_id: ClientId


class Cancelled(Message, frozen=True):
    """The ticket is given up."""

    status: TicketStatus = TicketStatus.CANCELLED


@request(
    "queue.cancel",
    owner="login",
    reply=Cancelled,
    access=Access.CONNECTED,
    lane=Lane.HIGH,
    scope="tid",
    errors=(TICKET_NOT_FOUND, SESSION_TAKEN_OVER),
)
class Cancel(Message, frozen=True):
    """Give up the place."""

    tid: TicketId
    client_id: ClientId


@event("QUEUE_UPDATE")
class QueueUpdate(Message, frozen=True):
    """The place in the waiting room; `position` counts from 1, the estimates are null while unknown.

    Waits are told from how many were really let in of late, and at the rate that is set: unknown until
    somebody has come in, and while nobody is let in. Nine of ten are let in within `estimatedWaitP90Sec`.

    A position is the most admissions that it can take while nobody of a higher tier comes. It gets worse only
    when one does, and then `reason` says so: `HIGHER_TIER`, in every update until the position is as good as
    the best one told before.

    Before an opening there is `opensAt`: whoever is there by then stands in an order that is drawn at random
    within the tier, before all who come later. Until then no place is given out: `position` is the last of
    the tier, and waits are unknown. The first place that is drawn has the reason `DRAWN`.
    """

    position: int
    estimated_wait_sec: int | None
    total_waiting: int
    estimated_wait_p90_sec: int | None = None
    reason: str | UnsetType = UNSET
    opens_at: int | UnsetType = UNSET


@event("QUEUE_READY")
class QueueReady(Message, frozen=True):
    """Your turn: send `auth.finalize` within `finalizeDeadlineSec`."""

    tid: str
    finalize_deadline_sec: int


@event("QUEUE_EXPIRED")
class QueueExpired(Message, frozen=True):
    """The ticket is gone: `FINALIZE_DEADLINE` passed, or it was `ABANDONED`."""

    tid: str
    reason: str
