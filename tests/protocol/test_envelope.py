"""What processes send each other: it comes back as it was, and an older or newer process understands it."""

from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, strategies as st

from protocol.codec import encode
from protocol.envelope import (
    Address,
    Change,
    Delivery,
    Envelope,
    ServerStatus,
    queue_create,
)
from protocol.messages.waiting import Stream
from protocol.queues import LANE_WEIGHTS, Lane, QueueType

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(0, 2**63 - 1)
addresses = st.builds(Address, texts, numbers)
bodies = st.builds(lambda tid: msgspec.Raw(encode(Stream(tid=tid, client_id="c"))), texts)
changes = st.one_of([st.from_type(change) for change in get_args(Change)])
deliveries = st.builds(
    Delivery,
    numbers,
    st.binary(),
    st.none() | numbers,
    st.none() | changes,
    st.none() | texts,
    st.none() | texts,
    st.none() | texts,
)
envelopes = st.builds(
    Envelope,
    type=texts,
    origin=addresses,
    id=numbers,
    number=numbers,
    data=bodies,
    sent_ms=numbers,
    deadline_ms=numbers,
    trace_id=texts,
    peer=texts,
    key=st.none() | texts,
    user_id=st.none() | texts,
)


@given(addresses)
def test_an_address_comes_back_from_its_text(address: Address) -> None:
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "SOCK001", "SOCK001/", "SOCK001/x", "S/1/", "S/+1", "S/ 1", "S/1_0", "S/٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|no address"):
        Address.parse(text)


@given(envelopes)
def test_an_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    again = msgspec.msgpack.decode(encode(envelope), type=Envelope)
    assert again == envelope
    assert bytes(again.data) == bytes(envelope.data)


@given(deliveries)
def test_a_delivery_comes_back_as_it_was(delivery: Delivery) -> None:
    assert msgspec.msgpack.decode(encode(delivery), type=Delivery) == delivery


@pytest.mark.parametrize("kind", [Envelope, Delivery, Address])
@given(data=st.data())
def test_what_a_newer_process_adds_is_passed_over(kind: Any, data: st.DataObject) -> None:
    value = data.draw({Envelope: envelopes, Delivery: deliveries, Address: addresses}[kind])
    newer = msgpack.unpackb(encode(value))
    assert msgspec.msgpack.decode(msgpack.packb([*newer, "more", {"and": "more"}]), type=kind) == value


@given(envelopes)
def test_what_an_older_process_leaves_out_has_its_default(envelope: Envelope) -> None:
    older = msgpack.unpackb(encode(envelope))[:9]
    again = msgspec.msgpack.decode(msgpack.packb(older), type=Envelope)
    assert (again.key, again.user_id) == (None, None)
    assert again.trace_id == envelope.trace_id


def test_a_frame_alone_is_a_delivery() -> None:
    assert msgspec.msgpack.decode(msgpack.packb([5, b"frame"]), type=Delivery) == Delivery(5, b"frame")


def test_a_queue_is_created_with_its_message() -> None:
    message = queue_create(
        "SOCK001", "SOCK001_Q", QueueType.SOCKET_MESSAGE, max_size=10_000, expire_s=3600, lane=Lane.HIGH
    )
    assert msgspec.to_builtins(message) == {
        "type": "queue_create",
        "data": {
            "serverId": "SOCK001",
            "queueId": "SOCK001_Q",
            "queueType": "socket_message",
            "config": {"maxSize": 10_000, "expireTime": 3600.0, "priority": "high"},
        },
    }


def test_a_status_is_named_in_camel_case() -> None:
    status = ServerStatus(event="server_ready", server_id="SOCK001", boot_id="b", status_code="READY")
    sent = msgspec.to_builtins(status)
    assert sent["type"] == "server_status"
    assert sent["statusCode"] == "READY"
    assert all("_" not in name for name in sent)
    assert msgspec.msgpack.decode(encode(status), type=ServerStatus) == status


def test_every_lane_has_a_share() -> None:
    assert set(LANE_WEIGHTS) == set(Lane)
    assert LANE_WEIGHTS[Lane.HIGH] > LANE_WEIGHTS[Lane.NORMAL] > LANE_WEIGHTS[Lane.LOW] > 0


def test_only_a_job_an_event_or_a_task_that_nobody_took_is_kept() -> None:
    assert {kind for kind in QueueType if kind.keeps_expired} == {
        *(QueueType.JOB, QueueType.EVENT, QueueType.TASK)
    }
    assert QueueType.SOCKET_MESSAGE.label == "socket_message"
