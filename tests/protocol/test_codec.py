"""Decoding what comes from outside: the limits, against msgpack's own library as an independent judge."""

import math
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given, strategies as st

from protocol.codec import decode_untrusted, encode
from protocol.errors import ProtocolError
from protocol.shape import MAX_DEPTH, MAX_ENTRIES, MAX_LENGTH


def nested_maps(depth: int) -> bytes:
    """`depth` maps, one in the other."""
    return b"\x81\xa1x" * (depth - 1) + b"\x80"


def nested_arrays(depth: int) -> bytes:
    """A map with arrays in it; `depth` containers, one in the other."""
    return b"\x81\xa1x" + b"\x91" * (depth - 2) + b"\x90"


def array_of(length: int, entry: bytes) -> bytes:
    return b"\xdc" + length.to_bytes(2, "big") + entry * length


def map_with(value: bytes) -> bytes:
    return b"\x81\xa1x" + value


@pytest.mark.parametrize("nested", [nested_maps, nested_arrays])
def test_nesting_is_taken_down_to_the_limit(nested: Any) -> None:
    decode_untrusted(nested(MAX_DEPTH))
    with pytest.raises(ProtocolError, match="Nesting deeper than 16"):
        decode_untrusted(nested(MAX_DEPTH + 1))
    with pytest.raises(ProtocolError):
        decode_untrusted(nested(100_000))


def test_a_map_is_taken_up_to_1024_entries() -> None:
    entries = {str(n): n for n in range(MAX_LENGTH)}
    assert decode_untrusted(encode(entries)) == entries
    with pytest.raises(ProtocolError, match="1025 entries"):
        decode_untrusted(encode(entries | {"more": 1}))


def test_an_array_is_taken_up_to_1024_entries() -> None:
    assert decode_untrusted(map_with(array_of(1024, b"\x01"))) == {"x": [1] * 1024}
    with pytest.raises(ProtocolError, match="1025 entries"):
        decode_untrusted(map_with(array_of(1025, b"\x01")))


def test_all_entries_of_a_frame_are_counted_together() -> None:
    # 1 for the outer map's, 32 for the array's, then its maps' or arrays' own.
    fits = [{}, *[[0] * 1024] * 31, [0] * (MAX_ENTRIES - 33 - 31 * 1024)]
    assert decode_untrusted(encode({"x": fits[1:]}))["x"] == fits[1:]
    with pytest.raises(ProtocolError, match="More than 32768 entries"):
        decode_untrusted(encode({"x": fits}))


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        map_with(b"\xc1"),
        map_with(msgpack.packb(msgpack.ExtType(5, b"abcd"))),
        map_with(msgpack.packb(msgpack.ExtType(5, b"abc"))),
        map_with(msgpack.packb(msgpack.ExtType(5, bytes(70_000)))),
        map_with(msgpack.packb(msgpack.Timestamp(1))),
        map_with(msgpack.packb(msgpack.Timestamp(1, 1))),
        map_with(msgpack.packb(msgpack.Timestamp(2**40, 1))),
        msgpack.packb(msgpack.ExtType(5, b"abcd")),
    ],
)
def test_extension_types_and_timestamps_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(body)


@pytest.mark.parametrize("key", [1, -1, None, True, 1.5, b"bytes", (1,), msgpack.Timestamp(1)])
def test_keys_that_are_not_text_are_refused(key: object) -> None:
    with pytest.raises(ProtocolError, match="A map key that is not text"):
        decode_untrusted(b"\x81" + msgpack.packb(key) + b"\x01")
    with pytest.raises(ProtocolError, match="A map key that is not text"):
        decode_untrusted(map_with(b"\x81" + msgpack.packb(key) + b"\x01"))


@pytest.mark.parametrize("body", [b"", b"\x90", b"\x01", b"\xc0", b"\xa1x", b"\xc4\x00", b"\xcb" + bytes(8)])
def test_what_is_no_map_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(body)


@given(st.binary(min_size=1, max_size=8))
def test_trailing_bytes_are_refused(more: bytes) -> None:
    with pytest.raises(ProtocolError, match="length"):
        decode_untrusted(encode({"id": 1}) + more)


@given(st.data())
def test_a_map_that_is_cut_short_is_refused(data: st.DataObject) -> None:
    body = encode({"type": "ping", "id": 70_000, "data": {"x": [1.5, b"b" * 300, "c" * 70_000, {}]}})
    with pytest.raises(ProtocolError):
        decode_untrusted(body[: data.draw(st.integers(0, len(body) - 1))])


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    packed = bytes([0xA0 + len(text)]) + text
    for body in (map_with(packed), b"\x81" + packed + b"\x01", map_with(b"\xd9" + bytes([len(text)]) + text)):
        with pytest.raises(ProtocolError):
            decode_untrusted(body)


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert decode_untrusted(b"\x82\xa2id\x01\xa2id\x02") == {"id": 2}


def test_not_a_number_is_a_number_like_others() -> None:
    assert math.isnan(decode_untrusted(map_with(msgpack.packb(math.nan)))["x"])


@pytest.mark.parametrize("length", [0, 1, 31, 32, 255, 256, 65_535, 65_536])
def test_keys_text_and_bytes_of_every_size_are_taken(length: int) -> None:
    value = {"k" * length: ["t" * length, b"b" * length]}
    assert decode_untrusted(msgpack.packb(value)) == value


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
wire_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=40), inner, max_size=8),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=40), wire_values))
def test_every_map_of_another_library_is_understood(value: dict[str, Any]) -> None:
    assert decode_untrusted(msgpack.packb(value)) == value


# Bytes that are msgpack more often than chance would have it.
_HEADS = st.sampled_from([*range(0x80, 0xA4), *range(0xC0, 0xE0), 0x00, 0xFF])
tokens = st.one_of(
    _HEADS.map(lambda head: bytes([head])),
    st.sampled_from(
        [b"\xdc\x00\x02", b"\xde\x00\x01", b"\xdd\x00\x00\x00\x01", b"\xd9\x01a", b"\xda\x00\x01a"]
    ),
    scalars.map(msgpack.packb),
    st.tuples(st.text(max_size=3), scalars).map(lambda pair: b"\x81" + b"".join(map(msgpack.packb, pair))),
    st.binary(max_size=4),
)
garbage = st.lists(tokens, max_size=30).map(b"".join)


class Pairs(list[tuple[Any, Any]]):
    """A map's pairs as they came, keys that come twice included."""


def refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(code)


def within_limits(value: Any, depth: int) -> bool:
    """The limits of nesting, lengths and keys (docs/protocol.md), put as plainly as can be."""
    if not isinstance(value, list):
        return not isinstance(value, msgpack.Timestamp)
    if depth > MAX_DEPTH or len(value) > MAX_LENGTH:
        return False
    if isinstance(value, Pairs):
        return all(type(key) is str and within_limits(inner, depth + 1) for key, inner in value)
    return all(within_limits(inner, depth + 1) for inner in value)


def judge(body: bytes) -> bool:
    """Whether a frame's body is to be taken, by another decoder and the rules above."""
    try:
        value = msgpack.unpackb(
            body, strict_map_key=False, object_pairs_hook=Pairs, ext_hook=refuse_extension, max_ext_len=2**31
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        return False
    return isinstance(value, Pairs) and within_limits(value, 1)


def accepts(body: bytes) -> bool:
    try:
        decode_untrusted(body)
    except ProtocolError:
        return False
    return True


@given(garbage)
@example(b"\x81\xa0\xd4\xff\x00")
@example(nested_arrays(MAX_DEPTH + 1))
def test_garbage_is_judged_as_another_decoder_judges_it(body: bytes) -> None:
    for candidate in (body, map_with(body), b"\x83\xa1a\x01\xa1b" + body):
        assert accepts(candidate) == judge(candidate)


@given(st.binary(max_size=300))
def test_random_bytes_are_judged_as_another_decoder_judges_them(body: bytes) -> None:
    assert accepts(body) == judge(body)


def test_encoding_writes_camel_case_and_leaves_out_what_is_unset() -> None:
    class Sample(msgspec.Struct, rename="camel"):
        two_words: int
        left_out: int | msgspec.UnsetType = msgspec.UNSET

    assert msgpack.unpackb(encode(Sample(two_words=1))) == {"twoWords": 1}
