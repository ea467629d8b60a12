"""The examples of docs/protocol.md, made of real frames, so that they are never wrong."""

import json
from typing import Any

import msgspec

from protocol.codec import encode
from protocol.connection import ClientConnection, error_frame, event_frame, goodbye_frame, reply_frame
from protocol.errors import INVALID_TICKET, GoodbyeCode, RequestError
from protocol.frames import HEADER_BYTES, frame
from protocol.messages.auth import Finalize, Finalized, LoggedIn, Login, Register, Registered, Resume, Resumed
from protocol.messages.connection import PROTOCOL_VERSION, Hello, HelloReply, Keepalive
from protocol.messages.waiting import Place, QueueReady, QueueUpdate, Stream, TicketStatus

CLIENT = "my-game/0.1"
NOW_MS = 1_767_225_600_000
TID, CLIENT_ID = "tkt_6Qh2…", "c_91f0…"
ACCESS, REFRESH = "eyJhbGciOi…", "rt_x8Kd…"

_ours = ClientConnection(8192)


def _dump(data: bytes) -> str:
    return data.hex(" ")


def _explained(value: dict[str, Any], name: bytes = b"", indent: str = "") -> list[tuple[bytes, str]]:
    """A msgpack map's bytes in pieces, each with what it says. `name` is the key that it has in another."""
    said = f'"{msgspec.msgpack.decode(name)}": ' if name else ""
    pieces = [(name + encode(dict.fromkeys(value))[:1], f"{indent}{said}a map of {len(value)}")]
    indent += "  "
    for key, inner in value.items():
        if isinstance(inner, dict):
            pieces += _explained(inner, encode(key), indent)
        else:
            pieces.append((encode(key) + encode(inner), f'{indent}"{key}": {json.dumps(inner)}'))
    return pieces


def hello_bytes() -> str:
    """`hello` as its bytes, explained. Raises ValueError when the explanation is not the frame."""
    sent = _ours.request("hello", 1, Hello(protocol=PROTOCOL_VERSION, client=CLIENT))
    body = sent[HEADER_BYTES:]
    pieces = [(sent[:HEADER_BYTES], f"{len(body)} bytes follow"), *_explained(msgspec.msgpack.decode(body))]
    if b"".join(piece for piece, _ in pieces) != sent:
        raise ValueError("The explained bytes of hello are not the bytes of hello.")
    width = max(len(_dump(piece)) for piece, _ in pieces)
    return "\n".join(f"{_dump(piece):<{width}}   {what}" for piece, what in pieces)


def _line(sent: bytes) -> str:
    body = msgspec.msgpack.decode(sent[HEADER_BYTES:])
    arrow = "→" if "id" in body and body["type"] != "reply" else "←"
    return f"{arrow} {json.dumps(body, ensure_ascii=False)}"


def _greeting(server_id: str, server_time: int) -> list[bytes]:
    node = HelloReply(
        server_id=server_id,
        protocol=PROTOCOL_VERSION,
        max_frame_bytes=1_048_576,
        keepalive_sec=15.0,
        server_time=server_time,
    )
    return [
        _ours.request("hello", 1, Hello(protocol=PROTOCOL_VERSION, client=CLIENT)),
        reply_frame(1, 200, node),
    ]


def _arrival() -> list[bytes]:
    account = Register(username="mina", password="correct horse", email="mina@example.com", nickname="미나")
    ticket = LoggedIn(
        tid=TID,
        client_id=CLIENT_ID,
        queue_type="portal",
        status=TicketStatus.PENDING,
        position=42,
        total_waiting=42,
        estimated_wait_sec=13,
    )
    return [
        _ours.request("auth.register", 2, account, key="5b1f…"),
        reply_frame(2, 201, Registered(user_id="mina")),
        _login(),
        reply_frame(3, 200, ticket),
    ]


def _login() -> bytes:
    # Sent by hand to leave out what Login has besides; its optional fields would be there as null.
    login = msgspec.convert({"username": "mina", "password": "correct horse"}, Login)
    data = {name: value for name, value in msgspec.to_builtins(login).items() if value is not None}
    return frame(encode({"type": "auth.login", "id": 3, "data": data, "key": "c07a…"}))


def _waiting() -> list[bytes]:
    place = Place(status=TicketStatus.PENDING, position=42, total_waiting=45, estimated_wait_sec=13)
    return [
        _ours.request("queue.stream", 4, Stream(tid=TID, client_id=CLIENT_ID)),
        reply_frame(4, 200, place),
        _ours.request("auth.finalize", 5, Finalize(tid=TID, client_id=CLIENT_ID)),
        error_frame(5, RequestError(INVALID_TICKET)),
        event_frame(
            QueueUpdate(position=20, estimated_wait_sec=6, estimated_wait_p90_sec=7, total_waiting=61)
        ),
        event_frame(QueueReady(tid=TID, finalize_deadline_sec=60)),
    ]


def _playing() -> list[bytes]:
    tokens = Finalized(access_token=ACCESS, refresh_token=REFRESH, expires_in=900, user_id="mina")
    return [
        _ours.request("auth.finalize", 6, Finalize(tid=TID, client_id=CLIENT_ID), key="e9d2…"),
        reply_frame(6, 200, tokens),
        event_frame(Keepalive(server_time=NOW_MS + 45_000)),
        goodbye_frame(GoodbyeCode.SERVER_DRAINING, retry_after_ms=730),
    ]


def _return() -> list[bytes]:
    state = Resumed(
        user_id="mina",
        roles=["USER"],
        permissions=[],
        expires_in=840,
        match=None,
        tasks=[],
        unread_notifications=0,
    )
    return [
        *_greeting("SOCK002", NOW_MS + 61_000),
        _ours.request("auth.resume", 2, Resume(access_token=ACCESS)),
        reply_frame(2, 200, state),
    ]


def session() -> str:
    """One player's frames, a line each, in scenes."""
    scenes = {
        "The first connection, to SOCK001.": _greeting("SOCK001", NOW_MS),
        "An account, and a place in the waiting room.": _arrival(),
        "Waiting. Spending the ticket too early does no harm.": _waiting(),
        "Signed in. Later the node goes away.": _playing(),
        "So a new connection, to another node; the player has missed nothing.": _return(),
    }
    return "\n\n".join(_scene(title, frames) for title, frames in scenes.items())


def _scene(title: str, frames: list[bytes]) -> str:
    return "\n".join([title, "", "```text", *map(_line, frames), "```"])
