"""Every declared message keeps the rules that hold for all of them."""

import re
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec import inspect

from protocol.codec import decode_untrusted, encode
from protocol.errors import ERROR_KINDS, FORBIDDEN
from protocol.messages import EVENTS, REQUESTS, Access, EventType, Message, RequestType, event_name, owned_by
from protocol.messages.declaration import Nothing, event, request
from tests.protocol.strategies import DATA_TYPES, fields_of, wire_maps

CAMEL_CASE = re.compile(r"[a-z][a-zA-Z0-9]*\Z")
every_data_type = pytest.mark.parametrize("data_type", DATA_TYPES, ids=lambda data_type: data_type.__name__)
every_request = pytest.mark.parametrize("declared", REQUESTS.values(), ids=list(REQUESTS))
every_event = pytest.mark.parametrize("declared", EVENTS.values(), ids=list(EVENTS))


@every_data_type
@settings(max_examples=30)
@given(data=st.data())
def test_a_message_comes_back_from_the_wire_as_it_was(data_type: type[Message], data: st.DataObject) -> None:
    fields = data.draw(wire_maps(data_type))
    message = msgspec.convert(decode_untrusted(msgpack.packb(fields)), data_type)
    again = decode_untrusted(encode(message))
    assert msgspec.convert(again, data_type) == message
    assert msgspec.msgpack.decode(encode(message), type=data_type) == message
    assert holds(again, fields)


def holds(whole: Any, part: Any) -> bool:
    """Whether all that `part` says is in `whole`, at any depth."""
    if isinstance(part, dict):
        return all(name in whole and holds(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


@every_data_type
def test_names_on_the_wire_are_camel_case(data_type: type[Message]) -> None:
    for field in fields_of(data_type):
        assert CAMEL_CASE.match(field.encode_name)
        assert field.encode_name.lower() == field.name.replace("_", "").lower()


@every_data_type
def test_instants_and_durations_are_named_for_their_units(data_type: type[Message]) -> None:
    for field in fields_of(data_type):
        if field.encode_name.endswith("At") or field.encode_name == "serverTime":
            assert isinstance(field.type, inspect.IntType)


@every_data_type
@settings(max_examples=10)
@given(data=st.data())
def test_fields_that_nobody_knows_are_ignored(data_type: type[Message], data: st.DataObject) -> None:
    fields = data.draw(wire_maps(data_type))
    newer = fields | {"fieldOfALaterVersion": {"deep": [1, b"2", None]}}
    assert msgspec.convert(newer, data_type) == msgspec.convert(fields, data_type)


@every_request
@settings(max_examples=5)
@given(data=st.data())
def test_a_missing_field_is_named_as_it_is_on_the_wire(declared: RequestType, data: st.DataObject) -> None:
    fields = data.draw(wire_maps(declared.data))
    for name in [field.encode_name for field in fields_of(declared.data) if field.required]:
        rest = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{name}`"):
            msgspec.convert(rest, declared.data)


@every_request
@settings(max_examples=5)
@given(data=st.data())
def test_a_wrong_field_is_named_as_it_is_on_the_wire(declared: RequestType, data: st.DataObject) -> None:
    fields = data.draw(wire_maps(declared.data))
    for field in fields_of(declared.data):
        wrong: dict[str, Any] = fields | {field.encode_name: [[]]}
        with pytest.raises(msgspec.ValidationError, match=rf"`\$\.{field.encode_name}"):
            msgspec.convert(wrong, declared.data)


@every_request
def test_a_request_is_declared_whole(declared: RequestType) -> None:
    assert REQUESTS[declared.name] is declared
    assert 200 <= declared.status < 300
    assert declared.owner
    assert declared.data.__doc__
    assert all(ERROR_KINDS[kind.code] is kind for kind in declared.errors)
    assert len(set(declared.errors)) == len(declared.errors)
    names_a_user = "user_id" in declared.data.__struct_fields__
    assert FORBIDDEN in declared.errors or not (declared.gated or names_a_user)


@every_request
def test_a_key_belongs_to_a_field_of_the_request(declared: RequestType) -> None:
    names = {field.name for field in fields_of(declared.data)}
    assert declared.scope is None or declared.scope in names


@every_request
def test_a_request_is_found_by_its_owner(declared: RequestType) -> None:
    assert owned_by(declared.owner)[declared.data] is declared


@every_event
def test_an_event_is_found_by_its_struct(declared: EventType) -> None:
    assert EVENTS[declared.name] is declared
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", declared.name)
    assert declared.data.__doc__
    names = {one.name for one in EVENTS.values() if one.data is declared.data}
    assert names == {declared.name}


def test_signing_in_needs_no_signed_in_connection() -> None:
    without = {name for name, declared in REQUESTS.items() if declared.access is Access.CONNECTED}
    assert without == {
        "hello", "ping", "auth.register", "auth.login", "auth.finalize", "auth.resume", "auth.refresh",
        "auth.logout", "queue.stream", "queue.cancel",
    }  # fmt: skip


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        request("ping", owner="login", reply=Nothing)(Nothing)
    with pytest.raises(ValueError, match="declared twice"):
        event("KEEPALIVE")(Nothing)


def test_a_struct_that_is_no_event_has_no_event_name() -> None:
    with pytest.raises(KeyError):
        event_name(Nothing())


SECRET_FIELDS = ("password", "token", "email", "fingerprint")


@every_request
def test_what_the_queues_must_not_know_is_confidential(declared: RequestType) -> None:
    carried = [field.name for data in (declared.data, declared.reply) for field in fields_of(data)]
    secrets = [name for name in carried if any(secret in name for secret in SECRET_FIELDS)]
    assert declared.confidential or not secrets
