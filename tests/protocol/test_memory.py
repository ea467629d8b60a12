"""No frame takes much more memory than its own bytes, however it is made."""

import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest

from protocol.codec import encode
from protocol.connection import BadRequest, RawRequest, ServerConnection
from protocol.errors import ProtocolError
from protocol.frames import HEADER, FrameReader, frame
from protocol.shape import MAX_ENTRIES

SMALL_FRAME_BYTES = 8 * 1024
LARGE_FRAME_BYTES = 1024 * 1024
MIB = 1024 * 1024

ENVELOPE = b"\x83" + encode({"type": "ping", "id": 1})[1:] + b"\xa4data\x81\xa1x"
"""A request's beginning, with the value of its data's one field still to come."""


def filled(size_bytes: int, pattern: bytes) -> bytes:
    """A request of about `size_bytes`, the rest of it `pattern` again and again."""
    return ENVELOPE + pattern * ((size_bytes - len(ENVELOPE)) // len(pattern))


def arrays_of(size_bytes: int, entry: bytes, length: int = 1000) -> bytes:
    """A request with an array of arrays of `entry`, whole and within 1,024 entries each."""
    row = b"\xdc" + length.to_bytes(2, "big") + entry * length
    rows = max(1, (size_bytes - len(ENVELOPE) - 3) // len(row))
    return ENVELOPE + b"\xdc" + rows.to_bytes(2, "big") + row * rows


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "array headers that each announce 1,024": lambda size: filled(size, b"\xdc\x04\x00"),
    "array headers that each announce 4 billion": lambda size: filled(size, b"\xdd\xff\xff\xff\xff"),
    "map headers that each announce 4 billion": lambda size: filled(size, b"\xdf\xff\xff\xff\xff\xa0"),
    "one array in the other": lambda size: filled(size, b"\x91"),
    "one map in the other": lambda size: filled(size, b"\x81\xa0"),
    "bytes that announce 4 billion": lambda size: filled(size, b"\xc6\xff\xff\xff\xff"),
    "15 long arrays in each other, full of empty ones": lambda size: (
        ENVELOPE + b"\xdc\x04\x00" * 14 + b"\x90" * (size - len(ENVELOPE) - 42)
    ),
    "empty arrays": lambda size: arrays_of(size, b"\x90"),
    "maps in maps": lambda size: arrays_of(size, b"\x81\xa0\x80"),
    "chains of maps with keys of their own": lambda size: arrays_of(size, b"\x81\xa2ab" * 13 + b"\x80", 72),
    "short texts": lambda size: arrays_of(size, b"\xa2\xc3\xa9"),
    "floats": lambda size: arrays_of(size, b"\xcb" + bytes(8), 500),
    "texts of one wide character and many narrow ones": lambda size: (
        ENVELOPE + b"\xdb" + (size - 100).to_bytes(4, "big") + "🎮".encode() + b"a" * (size - 104)
    ),
}


def peak_bytes(act: Callable[[], object]) -> int:
    """The most memory that `act` holds at once."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    ("frame_bytes", "allowed_bytes"), [(SMALL_FRAME_BYTES, MIB), (LARGE_FRAME_BYTES, 8 * MIB)]
)
def test_a_hostile_frame_costs_little(name: str, frame_bytes: int, allowed_bytes: int) -> None:
    received = frame(HOSTILE[name](frame_bytes))
    assert len(received) <= frame_bytes + 4

    def receive() -> None:
        with suppress(ProtocolError):
            list(ServerConnection(frame_bytes).receive(received))

    receive()
    assert peak_bytes(receive) < allowed_bytes


@pytest.mark.parametrize("entry", [b"\x90", b"\x80", b"\xa2\xc3\xa9", b"\xcb" + bytes(8)])
def test_as_many_entries_as_are_taken_cost_little(entry: bytes) -> None:
    row = b"\xdc\x03\xe8" + entry * 1000
    rows = MAX_ENTRIES // 1001
    body = ENVELOPE + b"\xdc" + rows.to_bytes(2, "big") + row * rows
    assert len(body) < LARGE_FRAME_BYTES
    assert MAX_ENTRIES - 1100 < rows * 1001 + 3 <= MAX_ENTRIES

    def receive() -> list[RawRequest | BadRequest]:
        return list(ServerConnection(LARGE_FRAME_BYTES).receive(frame(body)))

    assert len(receive()) == 1
    assert peak_bytes(receive) < 8 * MIB


def test_a_header_of_four_gibibytes_costs_four_bytes() -> None:
    def receive() -> None:
        with pytest.raises(ProtocolError):
            FrameReader(LARGE_FRAME_BYTES).feed(HEADER.pack(2**32 - 1))

    receive()
    assert peak_bytes(receive) < 64 * 1024


def test_a_frame_that_drips_is_held_once() -> None:
    received = frame(bytes(100_000))
    reader = FrameReader(LARGE_FRAME_BYTES)

    def drip() -> None:
        for at in range(len(received) - 1):
            assert reader.feed(received[at : at + 1]) == []

    # A bytearray grows ahead of itself by an eighth, and for a moment there are the old and the new one.
    assert peak_bytes(drip) < 3 * len(received)
    assert reader.buffered_bytes == len(received) - 1
