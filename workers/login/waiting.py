"""The waiting room's requests: `queue.stream` and `queue.cancel`."""

from msgspec import UNSET

from protocol.envelope import Watch
from protocol.errors import SESSION_TAKEN_OVER, TICKET_NOT_FOUND, RequestError
from protocol.kicking import kick
from protocol.messages.waiting import Cancel, Cancelled, Place, Stream, TicketStatus
from storage.tickets import TakenOver, TicketNotFound
from workers.login.admission import ready
from workers.login.room import LoginRoom, asker, handlers
from workers.login.survey import told_s
from workers.requests import Answer, Call, record


@handlers.handles(Stream)
async def stream(room: LoginRoom, call: Call[Stream]) -> Answer:
    """Send the ticket's events to this connection; one that had them before is kicked out."""
    tid = call.data.tid
    if not room.identifiers.is_ticket(tid):
        raise RequestError(TICKET_NOT_FOUND)
    try:
        place = await room.tickets.stream(tid, call.data.client_id, asker(call))
    except TicketNotFound:
        raise RequestError(TICKET_NOT_FOUND) from None
    except TakenOver:
        raise RequestError(SESSION_TAKEN_OVER) from None
    room.admission.wake()  # who was passed over may be the only one in line
    reply = Place(
        status=place.status,
        position=place.position,
        total_waiting=place.total_waiting,
        estimated_wait_sec=told_s(place.wait_s),
        opens_at=place.opens_at or UNSET,
    )
    also = kick(place.kicked)
    if place.status is TicketStatus.READY:
        also += ((call.envelope.origin, ready(call.envelope.origin, tid, place.deadline_s)),)
    return Answer(reply, Watch(tid), also)


@handlers.handles(Cancel)
async def cancel(room: LoginRoom, call: Call[Cancel]) -> Cancelled:
    """Give the place up."""
    tid, client_id = call.data.tid, call.data.client_id
    holder = await room.tickets.holder(tid) if room.identifiers.is_ticket(tid) else None
    if holder is None:
        raise RequestError(TICKET_NOT_FOUND)
    try:
        await room.tickets.cancel(tid, client_id, holder.user_id, record(call, f"{tid}\n{client_id}"))
    except TicketNotFound:
        raise RequestError(TICKET_NOT_FOUND) from None
    except TakenOver:
        raise RequestError(SESSION_TAKEN_OVER) from None
    return Cancelled()
