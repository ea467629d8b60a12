"""Frames: any chunking gives the same ones, and a bad header is refused before its body is held."""

from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from protocol.errors import ProtocolError
from protocol.frames import HEADER, HEADER_BYTES, FrameReader, frame

LIMIT_BYTES = 300

bodies_of_frames = st.lists(st.binary(min_size=1, max_size=LIMIT_BYTES), max_size=12)


@st.composite
def chunked_streams(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Bodies of frames, and the stream of them in chunks."""
    bodies = draw(bodies_of_frames)
    stream = b"".join(map(frame, bodies))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return bodies, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(chunked_streams())
def test_any_chunking_gives_the_same_frames(case: tuple[list[bytes], list[bytes]]) -> None:
    bodies, chunks = case
    reader = FrameReader(LIMIT_BYTES)
    received = []
    for chunk in chunks:
        received += reader.feed(chunk)
        assert reader.buffered_bytes < HEADER_BYTES + LIMIT_BYTES
    assert received == bodies
    assert reader.buffered_bytes == 0


@given(bodies_of_frames)
def test_one_byte_at_a_time_gives_the_same_frames(bodies: list[bytes]) -> None:
    reader = FrameReader(LIMIT_BYTES)
    stream = b"".join(map(frame, bodies))
    assert [body for byte in stream for body in reader.feed(bytes([byte]))] == bodies


@given(st.lists(st.binary(max_size=64)))
def test_garbage_gives_frames_or_a_protocol_error(chunks: list[bytes]) -> None:
    reader = FrameReader(LIMIT_BYTES)
    with suppress(ProtocolError):
        for chunk in chunks:
            reader.feed(chunk)
            assert reader.buffered_bytes < HEADER_BYTES + LIMIT_BYTES


@pytest.mark.parametrize("length", [0, LIMIT_BYTES + 1, 2**31, 2**32 - 1])
def test_a_bad_length_is_refused_from_the_header_alone(length: int) -> None:
    reader = FrameReader(LIMIT_BYTES)
    with pytest.raises(ProtocolError, match=f"A frame of {length} bytes"):
        reader.feed(HEADER.pack(length))
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize("length", [0, LIMIT_BYTES + 1, 2**32 - 1])
def test_a_bad_length_is_refused_with_the_last_byte_of_its_header(length: int) -> None:
    reader = FrameReader(LIMIT_BYTES)
    header = HEADER.pack(length)
    for byte in header[:-1]:
        assert reader.feed(bytes([byte])) == []
    with pytest.raises(ProtocolError):
        reader.feed(header[-1:])
    assert reader.buffered_bytes == 0


def test_a_bad_length_after_a_whole_frame_is_refused() -> None:
    with pytest.raises(ProtocolError):
        FrameReader(LIMIT_BYTES).feed(frame(b"whole") + HEADER.pack(0))


def test_the_longest_frame_is_taken() -> None:
    assert FrameReader(LIMIT_BYTES).feed(frame(bytes(LIMIT_BYTES))) == [bytes(LIMIT_BYTES)]


def test_a_raised_limit_holds_for_the_next_header() -> None:
    reader = FrameReader(LIMIT_BYTES)
    long = frame(bytes(LIMIT_BYTES + 1))
    assert reader.feed(long[:2]) == []
    reader.limit_bytes = LIMIT_BYTES + 1
    assert reader.feed(long[2:]) == [bytes(LIMIT_BYTES + 1)]


def test_a_header_is_four_bytes_big_endian() -> None:
    assert frame(b"ab") == b"\x00\x00\x00\x02ab"
