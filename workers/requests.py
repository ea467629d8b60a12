"""Requests as work: decode the envelope, call the handler, send the reply.

A worker package makes one `Handlers` and registers with it the handler of each request that it owns.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from protocol.connection import error_frame, reply_frame
from protocol.envelope import Address, Change, Confidence, Delivery, Envelope, trace_of
from protocol.errors import BUSY, BUSY_RETRY_MS, INTERNAL, NOT_AUTHENTICATED, RequestError
from protocol.messages import REQUESTS, Message, owned_by
from runtime.sealing import Seals, Undecipherable
from runtime.traffic import Traffic
from storage.errors import StoreAway
from storage.queues import Entry, Outbox, UnknownQueue
from storage.tickets import Record
from workers.consumer import Settle

log = structlog.get_logger(__name__)

KEY_TTL_S = 600.0
"""How long an idempotency key is remembered (docs/protocol.md, "Messages")."""

REDELIVERY_TTL_S = 60.0
"""How long a request without a key is: longer than it can still be delivered again."""

FAULT_STATUS = 500
"""From this status on an error is a fault of ours."""

D = TypeVar("D", bound=Message)
R = TypeVar("R")

_confidences = msgspec.msgpack.Decoder(Confidence)

Also = tuple[tuple[Address, Delivery], ...]


class Call(msgspec.Struct, Generic[D], frozen=True):
    """A request to be handled: its data, and the envelope that it came in."""

    data: D
    envelope: Envelope


def sender(call: Call[Any]) -> str:
    """The user who sent the request. Raises RequestError NOT_AUTHENTICATED."""
    if call.envelope.user_id is None:
        raise RequestError(NOT_AUTHENTICATED)
    return call.envelope.user_id


def record(call: Call[Any], scope: str) -> Record:
    """Where the call's first result is kept: by its key within `scope`, or just for a second delivery."""
    envelope = call.envelope
    if envelope.key is None:
        return Record(envelope.trace_id, REDELIVERY_TTL_S)
    named = "\n".join((envelope.type, scope, envelope.key))
    return Record(hashlib.sha256(named.encode()).hexdigest(), KEY_TTL_S)


class Answer(msgspec.Struct, frozen=True):
    """A reply, what the node must change about the connection that asked, and what others must hear.

    `reply` is an error where a refusal has an effect that others must hear of. `status` is that of a success,
    where it is not the declared one.

    All of it is sent before the request is acknowledged; what cannot be sent is sent again when the
    request is, so a handler that runs twice must answer the same.
    """

    reply: Message | RequestError
    change: Change | None = None
    also: Also = ()
    status: int | None = None


Handler = Callable[[R, Call[Any]], Awaitable[Message | Answer]]

LetIn = Callable[[Call[Any]], Awaitable[None]]
"""Raises RequestError FORBIDDEN for a gated request whose sender may not send it."""


class Handlers(Generic[R]):
    """The handlers of one kind of worker. `R` is what they all work with: the worker's room."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._handlers: dict[type[Message], Handler[R]] = {}

    def handles(
        self, data: type[D]
    ) -> Callable[
        [Callable[[R, Call[D]], Awaitable[Message | Answer]]],
        Callable[[R, Call[D]], Awaitable[Message | Answer]],
    ]:
        """Register the decorated coroutine function as the handler of the request that `data` declares."""

        def register(
            handler: Callable[[R, Call[D]], Awaitable[Message | Answer]],
        ) -> Callable[[R, Call[D]], Awaitable[Message | Answer]]:
            self._handlers[data] = handler
            return handler

        return register

    def check(self) -> None:
        """Raise RuntimeError unless these are handlers for exactly the requests that the worker owns."""
        owned = owned_by(self.owner)
        missing = sorted(owned[data].name for data in owned.keys() - self._handlers.keys())
        foreign = sorted(data.__name__ for data in self._handlers.keys() - owned.keys())
        if missing or foreign:
            raise RuntimeError(
                f"Worker {self.owner} has no handler for {missing or 'nothing'} "
                f"and handlers for {foreign or 'nothing'} that it does not own."
            )

    def __getitem__(self, data: type[Message]) -> Handler[R]:
        return self._handlers[data]


class Requests(Generic[R]):
    """Works on entries that hold envelopes. `room` is handed to every handler."""

    def __init__(self, handlers: Handlers[R], room: R, outbox: Outbox, seals: Seals, let_in: LetIn) -> None:
        self.owner = handlers.owner
        self._let_in = let_in
        self._handlers = handlers
        self._room = room
        self._outbox = outbox
        self._seals = seals
        self._envelopes = msgspec.msgpack.Decoder(Envelope)
        self.traffic = Traffic()
        self._log = log.bind()  # by itself `log` looks up what it is at each call
        self._data = {data: msgspec.msgpack.Decoder(data) for data in owned_by(handlers.owner)}

    async def work(self, entry: Entry, settle: Settle) -> None:
        """Answer one request; it is settled when all that its answer sends is in the queues."""
        envelope = self._envelopes.decode(entry.message)
        # Of this entry alone, which has a task of its own.
        structlog.contextvars.bind_contextvars(trace_id=trace_of(envelope.trace_id), type=envelope.type)
        if envelope.deadline_ms < time.time() * 1000:
            log.info("too late")
            settle(None)
            return
        self._log.debug("request", user_id=envelope.user_id)
        frame, change, also = await self._answer(envelope)
        self.traffic.answered(time.time() - envelope.sent_ms / 1000)
        origin = envelope.origin
        reply = Delivery(origin.connection_id, frame, envelope.number, change)
        declared = REQUESTS.get(envelope.type)
        if declared is not None and declared.confidential:
            sealed = self._seals.seal(frame, reply.seal_context(origin.server_id))
            reply = msgspec.structs.replace(reply, frame=sealed, sealed=True)
        sent = [(origin, reply), *also]
        left = len(sent)
        failure: Exception | None = None

        def done(error: Exception | None) -> None:
            nonlocal left, failure
            left -= 1
            # A node that is gone took the connection with it: nobody is left to be told.
            if error is not None and not isinstance(error, UnknownQueue):
                failure = error
            if left == 0:
                settle(failure)

        for address, delivery in sent:
            self._outbox.deliver(address.server_id, delivery, done)

    async def _answer(self, envelope: Envelope) -> tuple[bytes, Change | None, Also]:
        declared = REQUESTS.get(envelope.type)
        if declared is None or declared.data not in self._data:
            log.warning("a request of another release")
            return self._error(envelope, _not_yet()), None, ()
        try:
            if declared.confidential:
                envelope = self._opened(envelope)
            call = Call(self._data[declared.data].decode(envelope.data), envelope)
            if declared.gated:
                await self._let_in(call)
            answer = await self._handlers[declared.data](self._room, call)
        except Exception as error:
            return self._error(envelope, _refusal(error)), None, ()
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        if isinstance(answer.reply, RequestError):
            return self._error(envelope, answer.reply), answer.change, answer.also
        status = answer.status or declared.status
        return reply_frame(envelope.id, status, answer.reply), answer.change, answer.also

    def _opened(self, envelope: Envelope) -> Envelope:
        """The envelope as its node had it. Raises Undecipherable."""
        try:
            sealed = msgspec.msgpack.decode(envelope.data, type=bytes)
        except msgspec.ValidationError:
            raise Undecipherable("not sealed") from None
        opened = _confidences.decode(self._seals.open(sealed, envelope.seal_context))
        return msgspec.structs.replace(envelope, data=opened.data, peer=opened.peer)

    def _error(self, envelope: Envelope, error: RequestError) -> bytes:
        if error.kind.status >= FAULT_STATUS:
            self.traffic.failed()
        return error_frame(envelope.id, error)


def _not_yet() -> RequestError:
    """A node of a newer release knows more requests: asked again, one may reach a worker of that release."""
    return RequestError(BUSY, "No worker answers this request yet.", BUSY_RETRY_MS)


def _refusal(error: Exception) -> RequestError:
    """What the player is told in place of an answer; the log has the rest."""
    match error:
        case RequestError():
            return error
        case StoreAway():
            log.warning("a store is away", cause=str(error))
            return RequestError(BUSY, retry_after_ms=BUSY_RETRY_MS)
        case Undecipherable():
            log.error("cannot decipher", cause=str(error))
        case _:
            log.error("a handler failed", exc_info=error)
    return RequestError(INTERNAL)
