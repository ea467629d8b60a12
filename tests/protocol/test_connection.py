"""Both sides of a connection: what an envelope must have, what becomes of one that has it not."""

from contextlib import suppress
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st

from protocol.connection import (
    MAX_ID,
    BadRequest,
    ClientConnection,
    RawRequest,
    ServerConnection,
    ServerEvent,
    ServerReply,
    error_frame,
    event_frame,
    goodbye_frame,
    reply_frame,
)
from protocol.errors import BUSY, INVALID_REQUEST, INVALID_TICKET, GoodbyeCode, ProtocolError, RequestError
from protocol.frames import HEADER_BYTES, frame
from protocol.messages import REQUESTS, Nothing, RequestType
from protocol.messages.connection import Keepalive, KickedOut, Ping, Pong
from protocol.messages.waiting import Stream
from tests.protocol.strategies import wire_maps

LIMIT_BYTES = 1024 * 1024
PING = {"type": "ping", "id": 7, "data": {}}


def receive(fields: object) -> RawRequest | BadRequest:
    body = msgpack.packb(fields)
    (request,) = ServerConnection(LIMIT_BYTES).receive(frame(body))
    assert request.size_bytes == len(body)
    return msgspec.structs.replace(request, size_bytes=0)


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in PING.items() if field != name}


@pytest.mark.parametrize("declared", REQUESTS.values(), ids=list(REQUESTS))
@settings(max_examples=20)
@given(data=st.data())
def test_a_request_arrives_as_it_was_sent(declared: RequestType, data: st.DataObject) -> None:
    message = msgspec.convert(data.draw(wire_maps(declared.data)), declared.data)
    request_id = data.draw(st.integers(0, MAX_ID))
    key = data.draw(st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
    sent = ClientConnection(LIMIT_BYTES).request(declared.name, request_id, message, key)
    (request,) = ServerConnection(LIMIT_BYTES).receive(sent)
    assert isinstance(request, RawRequest)
    assert (request.type, request.id, request.key) == (declared.name, request_id, key)
    assert msgspec.convert(request.data, declared.data) == message


def test_fields_of_an_envelope_that_nobody_knows_are_ignored() -> None:
    assert receive(PING | {"later": [1, {"a": b"b"}]}) == receive(PING)


def test_a_key_of_null_is_no_key() -> None:
    assert receive(PING | {"key": None}) == receive(PING)


@pytest.mark.parametrize(
    "request_id",
    [None, -1, -(2**63), True, False, 1.0, "1", b"1", [], {}, MAX_ID + 1, 2**64 - 1, float("nan")],
)
def test_an_id_that_is_no_unsigned_integer_is_a_protocol_error(request_id: object) -> None:
    with pytest.raises(ProtocolError, match="`id`"):
        receive(PING | {"id": request_id})


def test_a_missing_id_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="`id`"):
        receive(without("id"))


@pytest.mark.parametrize("request_id", [0, 1, 127, 128, 2**32, MAX_ID])
def test_an_id_is_taken_from_0_to_its_largest(request_id: int) -> None:
    assert receive(PING | {"id": request_id}) == RawRequest("ping", request_id, {}, None)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("type", [None, 1, b"ping", ["ping"], "p" * 65]),
        ("data", [None, 1, "", [], b"", True]),
        ("key", ["", "k" * 65, 1, b"key", [], {}, False]),
    ],
)
def test_a_wrong_field_is_named_and_the_connection_lives_on(field: str, values: list[object]) -> None:
    connection = ServerConnection(LIMIT_BYTES)
    for value in values:
        bad, good = connection.receive(
            frame(msgpack.packb(PING | {field: value})) + frame(msgpack.packb(PING | {"id": 8}))
        )
        assert isinstance(bad, BadRequest)
        assert bad.id == 7
        assert bad.error.kind is INVALID_REQUEST
        assert f"`{field}`" in bad.error.message
        assert isinstance(good, RawRequest)
        assert (good.type, good.id) == ("ping", 8)


@pytest.mark.parametrize("field", ["type", "data"])
def test_a_missing_field_is_named(field: str) -> None:
    bad = receive(without(field))
    assert isinstance(bad, BadRequest)
    assert f"`{field}`" in bad.error.message


@pytest.mark.parametrize("key", ["k", "k" * 64, "가" * 64, "🎮" * 64, "\x00"])
def test_a_key_has_up_to_64_characters(key: str) -> None:
    assert receive(PING | {"key": key}) == RawRequest("ping", 7, {}, key)


def test_a_limit_can_be_raised_and_lowered() -> None:
    connection = ServerConnection(100)
    long = frame(msgpack.packb(PING | {"more": "x" * 200}))
    with pytest.raises(ProtocolError):
        connection.receive(long)
    connection = ServerConnection(100)
    connection.set_limit(300)
    assert len(list(connection.receive(long))) == 1
    connection.set_limit(100)
    with pytest.raises(ProtocolError):
        connection.receive(long)


valid_bodies = st.sampled_from(sorted(REQUESTS)).flatmap(
    lambda name: st.fixed_dictionaries(
        {"type": st.just(name), "id": st.integers(0, MAX_ID), "data": wire_maps(REQUESTS[name].data)},
        optional={"key": st.text(st.characters(codec="utf-8"), max_size=70)},
    ).map(msgpack.packb)
)


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A valid body in which some bytes are others, missing, twice or new."""
    body = draw(bodies)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 8)))
        middle = draw(st.binary(max_size=6) | st.just(body[start:end] * 2) | st.just(b"\xdc\x04\x00" * 5))
        body = body[:start] + middle + body[end:]
    return body


def only_a_protocol_error(connection: ServerConnection | ClientConnection, data: bytes) -> None:
    with suppress(ProtocolError):
        list(connection.receive(data))


@settings(max_examples=300)
@given(mutated(valid_bodies))
@example(b"\x81\xa2id\xcf" + b"\xff" * 8)
@example(b"\x81\xa2id\xa1\xff")
def test_mutated_requests_raise_nothing_but_protocol_errors(body: bytes) -> None:
    only_a_protocol_error(ServerConnection(LIMIT_BYTES), frame(body))


@given(st.binary(max_size=200))
@example(b"\x91" * 2000)
@example(b"\x81" * 2000)
@example(b"\x81\xa1a" * 2000)
@example(b"\xdd\xff\xff\xff\xff" * 400)
@example(b"\x81\xa4type\xa1\xff")
@example(b"\xa4type")
@example(b"\x81\x80\x01")
@example(b"\xd4\x05\x00")
def test_garbage_raises_nothing_but_protocol_errors(garbage: bytes) -> None:
    for connection in (ServerConnection(LIMIT_BYTES), ClientConnection(LIMIT_BYTES)):
        only_a_protocol_error(connection, garbage)
    for connection in (ServerConnection(LIMIT_BYTES), ClientConnection(LIMIT_BYTES)):
        only_a_protocol_error(connection, frame(garbage))


server_frames = st.sampled_from(
    [
        reply_frame(7, 200, Pong(server_time=1_700_000_000_000)),
        error_frame(7, RequestError(BUSY, retry_after_ms=250)),
        event_frame(KickedOut(reason="TAKEN_OVER")),
        goodbye_frame(GoodbyeCode.IDLE),
    ]
)


@settings(max_examples=300)
@given(mutated(server_frames.map(lambda framed: framed[HEADER_BYTES:])))
def test_a_mutated_server_raises_nothing_but_protocol_errors_in_a_client(body: bytes) -> None:
    only_a_protocol_error(ClientConnection(LIMIT_BYTES), frame(body))


def heard(*frames: bytes) -> list[ServerReply | ServerEvent]:
    return ClientConnection(LIMIT_BYTES).receive(b"".join(frames))


def test_a_reply_carries_its_status_and_data() -> None:
    assert heard(reply_frame(7, 201, Pong(server_time=5))) == [ServerReply(7, 201, data={"serverTime": 5})]
    assert heard(reply_frame(0, 200, Nothing())) == [ServerReply(0, 200)]


def test_an_error_carries_its_code_message_and_perhaps_a_wait() -> None:
    quiet, waiting = heard(
        error_frame(7, RequestError(INVALID_TICKET, "Not yet.")),
        error_frame(8, RequestError(BUSY, retry_after_ms=250)),
    )
    assert quiet == ServerReply(7, 400, error={"code": "INVALID_TICKET", "message": "Not yet."})
    assert waiting == ServerReply(
        8, 503, error={"code": "BUSY", "message": BUSY.message, "retryAfterMs": 250}
    )


def test_an_error_may_carry_the_state_that_stands_in_the_way() -> None:
    (refused,) = heard(error_frame(7, RequestError(INVALID_TICKET, "Not yet.", data=Pong(server_time=5))))
    assert refused == ServerReply(
        7, 400, data={"serverTime": 5}, error={"code": "INVALID_TICKET", "message": "Not yet."}
    )


def test_replies_and_errors_have_the_shape_of_the_reference() -> None:
    assert msgpack.unpackb(reply_frame(7, 200, Pong(server_time=5))[HEADER_BYTES:]) == {
        "type": "reply",
        "id": 7,
        "status": 200,
        "data": {"serverTime": 5},
    }
    assert msgpack.unpackb(error_frame(7, RequestError(BUSY, "Later.", 9))[HEADER_BYTES:]) == {
        "type": "reply",
        "id": 7,
        "status": 503,
        "error": {"code": "BUSY", "message": "Later.", "retryAfterMs": 9},
    }
    assert msgpack.unpackb(event_frame(Keepalive(server_time=5))[HEADER_BYTES:]) == {
        "type": "KEEPALIVE",
        "data": {"serverTime": 5},
    }


@pytest.mark.parametrize("code", list(GoodbyeCode))
def test_goodbye_says_why_and_whether_to_come_back(code: GoodbyeCode) -> None:
    (plain,) = heard(goodbye_frame(code))
    assert plain == ServerEvent(
        "GOODBYE", {"code": code.name, "message": code.message, "reconnect": code.reconnect}
    )
    (exact,) = heard(goodbye_frame(code, "Because.", 1500))
    assert exact == ServerEvent(
        "GOODBYE",
        {"code": code.name, "message": "Because.", "reconnect": code.reconnect, "retryAfterMs": 1500},
    )


def test_only_declared_events_are_sent() -> None:
    with pytest.raises(KeyError):
        event_frame(Stream(tid="t", client_id="c"))


def test_a_client_takes_what_a_newer_server_adds() -> None:
    (reply, event) = heard(
        frame(msgpack.packb({"type": "reply", "id": 1, "status": 200, "data": {"a": [1]}, "later": 1})),
        frame(msgpack.packb({"type": "OF_A_LATER_VERSION", "data": {}, "later": 1})),
    )
    assert reply == ServerReply(1, 200, data={"a": [1]})
    assert event == ServerEvent("OF_A_LATER_VERSION")


@given(st.lists(st.integers(0, MAX_ID), max_size=8), st.integers(1, 50))
def test_any_chunking_gives_the_same_requests(ids: list[int], size: int) -> None:
    client, connection = ClientConnection(LIMIT_BYTES), ServerConnection(LIMIT_BYTES)
    stream = b"".join(client.request("ping", request_id, Ping()) for request_id in ids)
    received = [
        request
        for at in range(0, len(stream), size)
        for request in connection.receive(stream[at : at + size])
    ]
    assert [request.id for request in received] == ids
    assert all(isinstance(request, RawRequest) and request.type == "ping" for request in received)
