"""One connection's protocol without any I/O: bytes in, requests out; messages in, bytes out.

The node's sockets, the client library and the tests put their own I/O around it. Times come from
the caller; nothing here reads a clock.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from protocol.codec import decode_untrusted, encode
from protocol.errors import INVALID_REQUEST, GoodbyeCode, ProtocolError, RequestError
from protocol.frames import FrameReader, frame
from protocol.messages.connection import Goodbye
from protocol.messages.declaration import Message, event_name

MAX_ID = 2**63 - 1
"""Request ids are unsigned; this is the largest that every msgpack library can hold."""

MAX_KEY_LENGTH = 64
"""Characters of an idempotency key (docs/protocol.md, "Limits")."""

MAX_TYPE_LENGTH = 64


class RawRequest(msgspec.Struct, frozen=True):
    """A request whose envelope is whole and whose data has not been looked at yet.

    `size_bytes` is what its frame's body has.
    """

    type: str
    id: int
    data: dict[str, Any]
    key: str | None = None
    size_bytes: int = 0


class BadRequest(msgspec.Struct, frozen=True):
    """An envelope with an id, so that it can be answered, and with `error` in another field."""

    id: int
    error: RequestError
    size_bytes: int = 0


def _request(body: bytes) -> RawRequest | BadRequest:
    fields = decode_untrusted(body)
    request_id = fields.get("id")
    if type(request_id) is not int or not 0 <= request_id <= MAX_ID:
        raise ProtocolError(f"An envelope whose `id` is no unsigned integer up to {MAX_ID}.")
    name, data, key = fields.get("type"), fields.get("data"), fields.get("key")
    if type(name) is not str or len(name) > MAX_TYPE_LENGTH:
        return _bad(request_id, body, f"`type` must be text of at most {MAX_TYPE_LENGTH} characters.")
    if type(data) is not dict:
        return _bad(request_id, body, "`data` must be a map.")
    if key is not None and (type(key) is not str or not 0 < len(key) <= MAX_KEY_LENGTH):
        return _bad(request_id, body, f"`key` must be text of 1 to {MAX_KEY_LENGTH} characters.")
    return RawRequest(name, request_id, data, key, len(body))


def _bad(request_id: int, body: bytes, message: str) -> BadRequest:
    return BadRequest(request_id, RequestError(INVALID_REQUEST, message), len(body))


class ServerConnection:
    """The server's side: turns received bytes into requests."""

    __slots__ = ("_frames",)

    def __init__(self, limit_bytes: int) -> None:
        self._frames = FrameReader(limit_bytes)

    def set_limit(self, limit_bytes: int) -> None:
        """Take frames of up to `limit_bytes` from now on."""
        self._frames.limit_bytes = limit_bytes

    def receive(self, data: bytes) -> Iterator[RawRequest | BadRequest]:
        """The requests that `data` completes, each read when it is asked for: who stops early pays no more.

        Raises ProtocolError, at once or at a request: say goodbye and close.
        """
        return map(_request, self._frames.feed(data))


def reply_frame(request_id: int, status: int, data: Message) -> bytes:
    """A success's bytes, header included."""
    return frame(encode({"type": "reply", "id": request_id, "status": status, "data": data}))


def error_frame(request_id: int, error: RequestError) -> bytes:
    """A refusal's bytes, header included."""
    body: dict[str, object] = {"code": error.kind.code, "message": error.message}
    if error.retry_after_ms is not None:
        body["retryAfterMs"] = error.retry_after_ms
    reply: dict[str, object] = {
        "type": "reply", "id": request_id, "status": error.kind.status, "error": body
    }  # fmt: skip
    if error.data is not None:
        reply["data"] = error.data
    return frame(encode(reply))


def event_frame(data: Message) -> bytes:
    """An event's bytes, header included. Raises KeyError unless its type is declared as an event."""
    return frame(encode({"type": event_name(data), "data": data}))


def goodbye_frame(code: GoodbyeCode, message: str | None = None, retry_after_ms: int | None = None) -> bytes:
    """The last event before a close."""
    goodbye = Goodbye(
        code=code.code,
        message=message or code.message,
        reconnect=code.reconnect,
        retry_after_ms=msgspec.UNSET if retry_after_ms is None else retry_after_ms,
    )
    return event_frame(goodbye)


class ServerReply(msgspec.Struct, frozen=True):
    """What a client reads as an answer: `data` when status is below 400, else `error`, some with `data`."""

    id: int
    status: int
    data: dict[str, Any] = {}
    error: dict[str, Any] = {}


class ServerEvent(msgspec.Struct, frozen=True):
    """What a client reads unasked."""

    type: str
    data: dict[str, Any] = {}


class ClientConnection:
    """The client's side: turns received bytes into replies and events, requests into bytes."""

    __slots__ = ("_frames",)

    def __init__(self, limit_bytes: int) -> None:
        self._frames = FrameReader(limit_bytes)

    def receive(self, data: bytes) -> list[ServerReply | ServerEvent]:
        """Return the messages that `data` completes.

        Raises ProtocolError for a server that speaks otherwise.
        """
        return [self._message(body) for body in self._frames.feed(data)]

    def request(self, name: str, request_id: int, data: Message, key: str | None = None) -> bytes:
        """A request's bytes, header included."""
        fields: dict[str, object] = {"type": name, "id": request_id, "data": data}
        if key is not None:
            fields["key"] = key
        return frame(encode(fields))

    @staticmethod
    def _message(body: bytes) -> ServerReply | ServerEvent:
        try:
            fields = msgspec.msgpack.decode(body)
            if fields["type"] == "reply":
                return msgspec.convert(fields, ServerReply)
            return msgspec.convert(fields, ServerEvent)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProtocolError(f"The server sent what is no reply and no event: {error}") from error
