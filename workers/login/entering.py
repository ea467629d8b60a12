"""What is kept of a login until its player comes in, and what is announced then. Pure but for the clock."""

import msgspec

from protocol.announcement import Announcement, LoginCompleted
from protocol.codec import encode
from protocol.envelope import trace_of
from protocol.messages.auth import Login
from protocol.messages.matching import Search
from storage.holders import Entrance, Holder
from storage.servers import now_ms
from workers.requests import Call


def entrance(call: Call[Login], family: str, risk: float) -> Entrance:
    """What a ticket keeps of this login. `family` is that of the refresh token, "" for a password."""
    wanted = call.data.auto_match
    return Entrance(
        family=family,
        risk=risk,
        trace=trace_of(call.envelope.trace_id),
        auto_match="" if wanted is None else msgspec.json.encode(wanted).decode(),
    )


def announcement(tid: str, holder: Holder) -> bytes:
    """That a player has come in, encoded; nothing for one who asked for no match.

    A rush of players who ask for none would cost each who listens an entry a player, to be thrown away.
    """
    if not holder.entrance.auto_match:
        return b""
    wanted = msgspec.json.decode(holder.entrance.auto_match, type=Search)
    fact = LoginCompleted(holder.user_id, encode(wanted), now_ms())
    return encode(Announcement(f"login_completed:{tid}", holder.entrance.trace, fact))
