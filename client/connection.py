"""One socket to a node: requests out, replies and events in.

An idle connection costs its socket, this object and one timer; no task and no stream, so that one
process can hold tens of thousands.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from ssl import SSLContext
from typing import cast

import msgspec

from client.errors import ConnectionLost, RequestFailed
from client.events import DEFAULT_LIMIT, EventStream
from protocol.connection import ClientConnection, ServerEvent, ServerReply
from protocol.errors import ProtocolError
from protocol.frames import HEADER_BYTES
from protocol.messages import EVENTS, REQUESTS, Message, RequestType
from protocol.messages.connection import PROTOCOL_VERSION, Goodbye, Hello, HelloReply, Ping

CONNECT_TIMEOUT_S = 10.0

REQUEST_TIMEOUT_S = 20.0
"""Longer than a node takes to answer `504 TIMEOUT` itself, so that it is heard."""

RECEIVE_LIMIT_BYTES = 16 * 1024 * 1024
"""The longest frame taken from a server. Nodes send far shorter ones; this only bounds memory."""

HELLO_LIMIT_BYTES = 8 * 1024
"""What a node takes before it has said more (docs/protocol.md, "Limits")."""

SILENT_PERIODS = 3
"""Keepalive periods without a byte after which a peer is dead (docs/protocol.md, "A connection's life")."""

DECLARED: dict[type[Message], RequestType] = {declared.data: declared for declared in REQUESTS.values()}
"""Every request's declaration, by the type of its data."""

_log = logging.getLogger("lobbyd.client")

EventCallback = Callable[[str, Message], None]
LostCallback = Callable[[ConnectionLost], None]


class Connection(asyncio.Protocol):
    """A connection that has said hello; made by `Connection.open`.

    `hello` is what the node said of itself, `goodbye` its last word, if it had one. `on_event` gets
    each event's name and Struct (events that this version does not know are passed over), `on_lost`
    is called once when the socket is gone. Both are called from the event loop and must not block.
    """

    __slots__ = (
        "_closed",
        "_heard",
        "_last_id",
        "_loop",
        "_max_frame_bytes",
        "_pending",
        "_quiet_periods",
        "_reason",
        "_spoke",
        "_stream",
        "_timer",
        "_transport",
        "_wire",
        "goodbye",
        "hello",
        "on_event",
        "on_lost",
    )

    hello: HelloReply
    _transport: asyncio.Transport

    def __init__(self, on_event: EventCallback | None = None, on_lost: LostCallback | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._wire = ClientConnection(RECEIVE_LIMIT_BYTES)
        self._pending: dict[int, tuple[asyncio.Future[Message], RequestType]] = {}
        self._max_frame_bytes = HELLO_LIMIT_BYTES
        self._last_id = 0
        self._heard = self._spoke = False
        self._quiet_periods = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reason: str | None = None
        self._stream: EventStream | None = None
        self._closed: asyncio.Future[ConnectionLost] = self._loop.create_future()
        self.goodbye: Goodbye | None = None
        self.on_event = on_event
        self.on_lost = on_lost

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        *,
        name: str = "lobbyd-client",
        local_address: str | None = None,
        ssl: SSLContext | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
        on_event: EventCallback | None = None,
        on_lost: LostCallback | None = None,
    ) -> "Connection":
        """Connect and say hello.

        Raises OSError (TimeoutError among them) when the node cannot be reached, ConnectionLost
        when it closes at once, RequestFailed when it speaks another version.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                lambda: cls(on_event, on_lost),
                host,
                port,
                ssl=ssl,
                local_addr=None if local_address is None else (local_address, 0),
            )
            try:
                await connection._greet(name)
            except BaseException:
                connection.abort()
                raise
        return connection

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent: the socket is there and the server has not said GOODBYE."""
        return self.goodbye is None and self._reason is None and not self._closed.done()

    @property
    def in_flight(self) -> int:
        """How many requests wait for an answer."""
        return len(self._pending)

    @property
    def closed(self) -> asyncio.Future[ConnectionLost]:
        """Done when the connection is gone, whoever ended it, with what there is to say of that."""
        return asyncio.shield(self._closed)

    def send(self, message: Message, *, key: str | None = None) -> asyncio.Future[Message]:
        """Send a request and return its answer's future, without a timeout of its own.

        The future raises as `request` does. Raises KeyError for a message that is no request,
        ConnectionLost when the connection is closed, ValueError for a frame longer than the node takes.
        """
        return self._send(message, key)[1]

    async def request(
        self, message: Message, *, key: str | None = None, timeout_s: float | None = REQUEST_TIMEOUT_S
    ) -> Message:
        """Send a request and return its answer, of the type that the request's declaration names.

        `key` is the idempotency key. Raises RequestFailed for an error reply; TimeoutError when no
        reply comes and ConnectionLost when the socket goes first, the outcome being unknown for
        both; ProtocolError for an answer of another shape; and what `send` raises.
        """
        request_id, answer = self._send(message, key)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            name = DECLARED[type(message)].name
            raise TimeoutError(f"No answer to {name} within {timeout_s} s; its outcome is unknown.") from None
        finally:
            if self._pending.pop(request_id, None) is not None:
                self._leave_when_done()

    def events(self, limit: int = DEFAULT_LIMIT) -> EventStream:
        """Return an async iterator over the events from now on; it ends with the connection.

        At most `limit` wait for the reader, then the oldest are lost. A newer call takes the events
        over, and the older iterator ends.
        """
        if self._stream is not None:
            self._stream.end()
        self._stream = EventStream(limit)
        if self._closed.done():
            self._stream.end()
        return self._stream

    def close(self) -> None:
        """Close once what was sent has left; requests in flight raise ConnectionLost."""
        self._reason = self._reason or "This client closed the connection."
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._reason = self._reason or "This client closed the connection."
        self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand each whole message to whom it is for."""
        self._heard = True
        try:
            messages = self._wire.receive(data)
        except ProtocolError as error:
            self._give_up(error.message)
            return
        for message in messages:
            if isinstance(message, ServerReply):
                self._take_reply(message)
            else:
                self._take_event(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who waits."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reason is None:
            self._reason = f"The connection broke: {exc}" if exc else "The server closed the connection."
        pending, self._pending = self._pending, {}
        for answer, _ in pending.values():
            if not answer.done():
                answer.set_exception(self._loss())
        self._closed.set_result(self._loss())
        if self._stream is not None:
            self._stream.end()
        if self.on_lost is not None:
            self.on_lost(self._loss())

    # The rest.

    async def _greet(self, name: str) -> None:
        hello = Hello(protocol=PROTOCOL_VERSION, client=name)
        self.hello = cast(HelloReply, await self.request(hello, timeout_s=None))
        self._max_frame_bytes = self.hello.max_frame_bytes
        # Connections that were opened together do not ping together.
        first_s = self.hello.keepalive_sec * random.uniform(0.5, 1.0)
        self._timer = self._loop.call_later(first_s, self._end_period)

    def _send(self, message: Message, key: str | None) -> tuple[int, asyncio.Future[Message]]:
        declared = DECLARED[type(message)]
        if not self.is_open:
            raise self._loss()
        # Ids only grow, so that none is used again while an old request may still be in flight.
        request_id = self._last_id + 1
        self._write(declared.name, request_id, message, key)
        self._last_id = request_id
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._pending[request_id] = (answer, declared)
        return request_id, answer

    def _write(self, name: str, request_id: int, message: Message, key: str | None = None) -> None:
        frame = self._wire.request(name, request_id, message, key)
        if len(frame) - HEADER_BYTES > self._max_frame_bytes:
            raise ValueError(f"A request of {len(frame)} bytes; this node takes {self._max_frame_bytes}.")
        self._transport.write(frame)
        self._spoke = True

    def _take_reply(self, reply: ServerReply) -> None:
        waiting = self._pending.pop(reply.id, None)
        if waiting is None:
            return  # A ping's, or one that nobody waits for any more.
        answer, declared = waiting
        if not answer.done():
            _settle(answer, declared, reply)
        self._leave_when_done()

    def _take_event(self, event: ServerEvent) -> None:
        declared = EVENTS.get(event.type)
        if declared is None:
            return
        try:
            data = msgspec.convert(event.data, declared.data)
        except msgspec.ValidationError as error:
            # Events are hints: one that a newer server shaped otherwise must not cost the connection.
            _log.warning("Passed over an event %s of another shape: %s", event.type, error)
            return
        if isinstance(data, Goodbye):
            self.goodbye = data
        self._tell(event.type, data)
        self._leave_when_done()

    def _tell(self, name: str, event: Message) -> None:
        if self._stream is not None:
            self._stream.push(event)
        if self.on_event is None:
            return
        try:
            self.on_event(name, event)
        except Exception as error:  # The caller's own; it must not cost the connection.
            context = {"message": f"on_event failed for {name}", "exception": error, "protocol": self}
            self._loop.call_exception_handler(context)

    def _leave_when_done(self) -> None:
        """After GOODBYE stay only for the replies that a draining node still owes."""
        if self.goodbye is not None and not self._pending:
            self._transport.close()

    def _end_period(self) -> None:
        """Once a keepalive period: notice a dead server, and speak when silent for a whole period.

        So a silent client pings every second period, and the server's limit is three.
        """
        self._quiet_periods = 0 if self._heard else self._quiet_periods + 1
        if self._quiet_periods >= SILENT_PERIODS:
            self._give_up(f"Nothing was heard from the server for {SILENT_PERIODS} keepalive periods.")
            return
        spoke, self._heard, self._spoke = self._spoke, False, False
        if not spoke and self.is_open:
            self._last_id += 1
            self._write(DECLARED[Ping].name, self._last_id, Ping())
        self._timer = self._loop.call_later(self.hello.keepalive_sec, self._end_period)

    def _give_up(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._transport.abort()

    def _loss(self) -> ConnectionLost:
        if self.goodbye is not None:
            return ConnectionLost(self.goodbye.message, self.goodbye)
        return ConnectionLost(self._reason or "The connection is closed.")


def _settle(answer: asyncio.Future[Message], declared: RequestType, reply: ServerReply) -> None:
    try:
        if reply.status < 400:
            answer.set_result(msgspec.convert(reply.data, declared.reply))
        else:
            answer.set_exception(_failure(reply))
    except msgspec.ValidationError as error:
        answer.set_exception(
            ProtocolError(f"The server's answer to {declared.name} has another shape: {error}")
        )


class _ErrorBody(msgspec.Struct, rename="camel"):
    code: str
    message: str
    retry_after_ms: int | None = None


def _failure(reply: ServerReply) -> RequestFailed:
    body = msgspec.convert(reply.error, _ErrorBody)
    return RequestFailed(body.code, reply.status, body.message, body.retry_after_ms, reply.data)
