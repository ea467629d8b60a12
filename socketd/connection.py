"""One client's socket: an asyncio protocol around the sans-I/O connection, and its state.

A node holds a hundred thousand of these, so each has slots, no task and no timer of its own.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from protocol.connection import ServerConnection, goodbye_frame
from protocol.errors import GoodbyeCode, ProtocolError
from socketd.limits import COSTLY_BYTES, TokenBucket, network_of

if TYPE_CHECKING:
    from protocol.envelope import Delivery
    from socketd.server import Door


REFUSALS = 10
"""Times the rate of requests at which a client may be refused: beyond, it does not heed `retryAfterMs`, and
answering it would cost the others."""

LARGE_READ_BYTES = 65_536
"""After as much at once the other connections have their turn: uvloop would read on, 8 MB at a time."""


class Connection(asyncio.Protocol):
    """A connection from accept to close.

    `user_id` is None until it is signed in; `ticket` is the one that it streams, if any. `peer` is where it
    comes from, as limits count it. `trace` is that of the stay, "" before the first request.
    `undelivered` is what came for a user while requests were under way that may sign one in. Times are
    seconds of the loop's clock.
    """

    __slots__ = (
        "_bucket",
        "_door",
        "_protocol",
        "_refusals",
        "_transport",
        "_user_bucket",
        "closing",
        "due",
        "greeted",
        "id",
        "in_flight",
        "last_once",
        "last_received_s",
        "last_sent_s",
        "opened_s",
        "peer",
        "ticket",
        "trace",
        "undelivered",
        "user_id",
    )  # fmt: skip

    def __init__(self, door: "Door") -> None:
        self._door = door
        self._protocol = ServerConnection(door.limits.max_frame_bytes_before_sign_in)
        self._transport: asyncio.Transport | None = None
        self._refusals: TokenBucket | None = None
        self._user_bucket: TokenBucket | None = None
        self.id = 0
        self.peer = ""
        self.greeted = False
        self.closing = False
        self.due = 0
        self.user_id: str | None = None
        self.in_flight: set[int] = set()
        self.last_once: str | None = None
        self.ticket: str | None = None
        self.trace = ""
        self.undelivered: list[Delivery] | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in, or turn it away where there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._door.limits.max_write_buffer_bytes)
        name = transport.get_extra_info("peername")
        self.peer = network_of(name[0], self._door.rates.ipv6_prefix) if name else "unknown"
        now_s = self._door.now_s()
        self.opened_s = self.last_received_s = self.last_sent_s = now_s
        self._bucket = TokenBucket(self._door.rates.requests_per_second, now_s)
        self._door.opened(self)

    def data_received(self, data: bytes) -> None:
        """Cut into requests and hand them on; what is no protocol ends the connection."""
        now_s = self._door.now_s()
        try:
            for request in self._protocol.receive(data):
                if self.closing:
                    return
                self.last_received_s = now_s
                self._door.dispatch(self, request)
        except ProtocolError as error:
            self.close(GoodbyeCode.PROTOCOL_ERROR, error.message)
            return
        if len(data) >= LARGE_READ_BYTES and self._transport is not None:
            self._transport.pause_reading()
            self._door.call_soon(self._read_on)

    def eof_received(self) -> bool:
        """A client that has said its last word is gone."""
        return False

    def pause_writing(self) -> None:
        """More waits for this client than the cap: it does not read, so it is cut."""
        self.close(GoodbyeCode.SLOW_CONSUMER)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, whoever closed it."""
        self.closing = True
        self._transport = None
        self._let_go_of_user()
        self._door.closed(self)

    # What the node calls.

    def turn(self, now_s: float, size_bytes: int) -> float:
        """Take the turn for one request of that size. Answers 0, or the seconds until there is one.

        Raises ProtocolError for a client that asks on and on nevertheless.
        """
        if self._user_bucket is None:
            cost = 1 + size_bytes // COSTLY_BYTES
            wait_s = self._bucket.take(now_s, cost)
        else:
            cost = 1
            wait_s = self._bucket.take(now_s) or self._user_bucket.take(now_s)
        if not wait_s:
            return 0.0
        if self._refusals is None:
            self._refusals = TokenBucket(REFUSALS * self._door.rates.requests_per_second, now_s)
        if self._refusals.take(now_s, cost):
            raise ProtocolError("Requests go on and on although they are refused: wait for retryAfterMs.")
        return wait_s

    def send(self, frame: bytes) -> None:
        """Write a whole frame; nothing happens when the connection is closing."""
        if self._transport is None or self.closing:
            return
        self.last_sent_s = self._door.now_s()
        self._transport.write(frame)

    def greet(self) -> None:
        """The client has said hello: from now on it is kept alive."""
        self.greeted = True
        self._door.greeted(self)

    def sign_in(self, user_id: str, trace: str) -> None:
        """The connection is this user's from now on, with the larger frames of a signed-in user."""
        self._let_go_of_user()
        self._user_bucket = self._door.users.take_up(user_id, self._door.now_s())
        self.user_id, self.ticket = user_id, None
        self.trace = trace or self.trace
        self._protocol.set_limit(self._door.limits.max_frame_bytes)

    def sign_out(self) -> None:
        """The connection is nobody's from now on."""
        self._let_go_of_user()
        self.user_id, self.trace = None, ""
        self._protocol.set_limit(self._door.limits.max_frame_bytes_before_sign_in)

    def close(self, code: GoodbyeCode, message: str | None = None, retry_after_ms: int | None = None) -> None:
        """Say GOODBYE and close once it is written. A second call does nothing."""
        if self._transport is None or self.closing:
            return
        self.send(goodbye_frame(code, message, retry_after_ms))
        self.closing = True
        self._door.says_goodbye(self, code)
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the socket with whatever waits to be written."""
        if self._transport is not None:
            self._transport.abort()

    def _let_go_of_user(self) -> None:
        if self._user_bucket is not None:
            self._door.users.hand_back(self._user_bucket, self._door.now_s())
            self._user_bucket = None

    def _read_on(self) -> None:
        if self._transport is not None and not self.closing:
            self._transport.resume_reading()
