"""What a connection says about itself: hello, ping, keepalive, goodbye, kicked out."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from protocol.errors import UNSUPPORTED_VERSION
from protocol.messages.declaration import SOCKETD, Access, Message, Nothing, event, request

PROTOCOL_VERSION = 1


class HelloReply(Message, frozen=True):
    """What a client needs to know of the node. `maxFrameBytes` is taken from signed-in users."""

    server_id: str
    protocol: int
    max_frame_bytes: int
    keepalive_sec: float
    server_time: int


@request("hello", owner=SOCKETD, reply=HelloReply, access=Access.CONNECTED, errors=(UNSUPPORTED_VERSION,))
class Hello(Message, frozen=True):
    """The first request on every connection. `client` names the program, for operators."""

    protocol: Annotated[int, Meta(description=f"{PROTOCOL_VERSION}, the version of this page")]
    client: Annotated[str, Meta(max_length=128)]


class Pong(Message, frozen=True):
    """The node's time in ms since the epoch."""

    server_time: int


@request("ping", owner=SOCKETD, reply=Pong, access=Access.CONNECTED)
class Ping(Nothing, frozen=True):
    """Shows that the connection is alive, and keeps it so."""


@event("KEEPALIVE")
class Keepalive(Message, frozen=True):
    """Sent after `keepaliveSec` of the server's own silence."""

    server_time: int


@event("GOODBYE")
class Goodbye(Message, frozen=True):
    """The last event before the server closes.

    `code` says why, `reconnect` whether coming back can help.
    """

    code: str
    message: str
    reconnect: bool
    retry_after_ms: int | UnsetType = UNSET


KICKED_OUT_MESSAGE = "다른 곳에서 로그인되어 연결이 종료되었습니다."
ADMIN_MESSAGE = "운영자에 의해 연결이 종료되었습니다."


@event("KICKED_OUT")
class KickedOut(Message, frozen=True):
    """Somebody else holds this user's place or session now: `TAKEN_OVER`, or `ADMIN`."""

    reason: str
    message: str = KICKED_OUT_MESSAGE
