"""What is sent to a connection that must go: KICKED_OUT, then GOODBYE."""

from typing import Literal

from protocol.connection import event_frame
from protocol.envelope import Address, Close, Delivery
from protocol.errors import GoodbyeCode
from protocol.messages.connection import ADMIN_MESSAGE, KICKED_OUT_MESSAGE, KickedOut

_MESSAGES = {"TAKEN_OVER": KICKED_OUT_MESSAGE, "ADMIN": ADMIN_MESSAGE}


def kick(
    address: Address | None, user_id: str | None = None, reason: Literal["TAKEN_OVER", "ADMIN"] = "TAKEN_OVER"
) -> tuple[tuple[Address, Delivery], ...]:
    """What must be sent so that a connection which lost its ticket, or this user's session, is closed."""
    if address is None:
        return ()
    frame = event_frame(KickedOut(reason=reason, message=_MESSAGES[reason]))
    delivery = Delivery(address.connection_id, frame, change=Close(GoodbyeCode.TAKEN_OVER.name, user_id))
    return ((address, delivery),)
