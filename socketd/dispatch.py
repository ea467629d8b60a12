"""What becomes of a request: answered here, refused here, or on its way to a worker."""

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from protocol.codec import encode
from protocol.connection import BadRequest, RawRequest, error_frame, reply_frame
from protocol.envelope import Address, Confidence, Envelope
from protocol.errors import (
    BUSY,
    BUSY_RETRY_MS,
    DUPLICATE_ID,
    NOT_AUTHENTICATED,
    RATE_LIMITED,
    UNKNOWN_TYPE,
    UNSUPPORTED_VERSION,
    GoodbyeCode,
    ProtocolError,
    RequestError,
)
from protocol.messages import REQUESTS, SOCKETD, Access, Message, RequestType, owned_by
from protocol.messages.auth import Login
from protocol.messages.connection import PROTOCOL_VERSION, Hello, HelloReply, Ping, Pong
from protocol.messages.conversion import convert
from runtime.sealing import Seals
from runtime.settings import SocketdSettings
from socketd.connection import Connection
from socketd.registry import Registry
from storage import keys
from storage.queues import Outbox

log = structlog.get_logger(__name__)


class Dispatcher:
    """Takes every request of every connection of one node."""

    def __init__(self, settings: SocketdSettings, registry: Registry, outbox: Outbox, seals: Seals) -> None:
        self._settings = settings
        self._registry = registry
        self._outbox = outbox
        self._seals = seals
        self._timeout_ms = int(settings.request_timeout_s * 1000)
        self._trace_prefix = os.urandom(6).hex()
        self._log = log.bind()  # by itself `log` looks up what it is at each call
        self._own: dict[type[Message], Callable[[Connection, int, Any], None]] = {
            Hello: self._hello,
            Ping: self._ping,
        }
        self.draining = False

    def check_handlers(self) -> None:
        """Raise RuntimeError unless the node answers exactly the requests that are declared to be its own."""
        if set(self._own) != set(owned_by(SOCKETD)):
            raise RuntimeError("The node's handlers are not the requests that it owns.")

    def dispatch(self, connection: Connection, request: RawRequest | BadRequest, now_s: float) -> None:
        """Handle one request. Raises ProtocolError when the connection must end."""
        if not connection.greeted and (isinstance(request, BadRequest) or request.type != "hello"):
            raise ProtocolError("The first request must be hello.")
        try:
            self._admit(connection, request, now_s)
        except RequestError as error:
            connection.send(error_frame(request.id, error))

    def _admit(self, connection: Connection, request: RawRequest | BadRequest, now_s: float) -> None:
        wait_s = connection.turn(now_s, request.size_bytes)
        if wait_s:
            raise RequestError(RATE_LIMITED, retry_after_ms=int(wait_s * 1000) + 1)
        if isinstance(request, BadRequest):
            raise request.error
        if request.id in connection.in_flight:
            raise RequestError(DUPLICATE_ID)
        declared = REQUESTS.get(request.type)
        if declared is None:
            raise RequestError(UNKNOWN_TYPE, f"There is no request `{request.type}`.")
        if declared.access is Access.SIGNED_IN and connection.user_id is None:
            raise RequestError(NOT_AUTHENTICATED)
        data = convert(request.data, declared.data)
        if declared.owner == SOCKETD:
            self._own[declared.data](connection, request.id, data)
        else:
            self._forward(connection, declared, request, data, now_s)

    def _forward(
        self, connection: Connection, declared: RequestType, request: RawRequest, data: Message, now_s: float
    ) -> None:
        if self.draining:
            raise RequestError(BUSY, "This node is going away.", retry_after_ms=BUSY_RETRY_MS)
        number = self._registry.expect(connection, request.id, now_s)
        span = f"{self._trace_prefix}{number:x}"
        if declared.data is Login or not connection.trace:
            connection.trace = span  # here a stay begins
        sent_ms = int(time.time() * 1000)
        envelope = Envelope(
            type=declared.name,
            origin=Address(self._settings.server_id, connection.id),
            id=request.id,
            number=number,
            data=msgspec.Raw(encode(data)),
            sent_ms=sent_ms,
            deadline_ms=sent_ms + self._timeout_ms,
            trace_id=f"{connection.trace}-{span}",
            peer="",
            key=request.key,
            user_id=connection.user_id,
        )
        self._log.debug("request", type=declared.name, trace_id=connection.trace, connection=connection.id)
        if declared.confidential:
            envelope = self._sealed(envelope, connection.peer)

        def done(error: Exception | None) -> None:
            if error is not None:
                self.refuse(number, RequestError(BUSY, retry_after_ms=BUSY_RETRY_MS))

        self._outbox.publish(keys.lane_queue(declared.owner, declared.lane), encode(envelope), done)

    def _sealed(self, envelope: Envelope, peer: str) -> Envelope:
        confidence = encode(Confidence(envelope.data, peer))
        sealed = self._seals.seal(confidence, envelope.seal_context)
        return msgspec.structs.replace(envelope, data=msgspec.Raw(encode(sealed)))

    def refuse(self, number: int, error: RequestError) -> None:
        """Answer a pending request with an error, unless it has been answered."""
        pending = self._registry.settle(number)
        if pending is not None:
            self._registry.traffic.failed()
            pending.connection.send(error_frame(pending.request_id, error))

    def _hello(self, connection: Connection, request_id: int, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            connection.send(error_frame(request_id, RequestError(UNSUPPORTED_VERSION)))
            connection.close(GoodbyeCode.UNSUPPORTED_VERSION)
            return
        connection.greet()
        reply = HelloReply(
            server_id=self._settings.server_id,
            protocol=PROTOCOL_VERSION,
            max_frame_bytes=self._settings.max_frame_bytes,
            keepalive_sec=self._settings.keepalive_s,
            server_time=int(time.time() * 1000),
        )
        connection.send(reply_frame(request_id, 200, reply))

    def _ping(self, connection: Connection, request_id: int, _: Ping) -> None:
        connection.send(reply_frame(request_id, 200, Pong(server_time=int(time.time() * 1000))))
