"""Looks at a frame's msgpack without building anything of it.

A frame can ask for far more memory than it has bytes: an empty array is one byte on the wire and
some 64 in the process, and a header of three announces 65,535 entries that never come. So the
headers alone are walked first, and what is outside the limits is refused before it costs anything.
"""

from protocol.errors import ProtocolError

MAX_DEPTH = 16
"""Nesting that is taken from outside (docs/protocol.md, "Limits")."""

MAX_LENGTH = 1024
"""Entries of one map or array that are taken from outside (docs/protocol.md, "Limits")."""

MAX_ENTRIES = 32 * MAX_LENGTH
"""Entries of all maps and arrays of a frame together: room for a thousand rows of thirty columns.
Without it a frame of 1 MiB could cost 64 MiB and half a second (docs/decisions/0004)."""

_TEXT = range(0xD9, 0xDC)
_SIZE_BYTES = {
    0xC4: 1, 0xC5: 2, 0xC6: 4,  # bytes
    0xD9: 1, 0xDA: 2, 0xDB: 4,  # text
    0xDC: 2, 0xDD: 4,  # arrays
    0xDE: 2, 0xDF: 4,  # maps
}  # fmt: skip
"""How many bytes after a head say the size; heads of extensions, timestamps among them, are not here."""

_NUMBER_BYTES = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}


def _text_bytes(head: int) -> int:
    return head - 0x9F if 0xA0 <= head <= 0xBF else 0


def _plain_bytes(head: int) -> int:
    if head <= 0x7F or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):  # small integers, nil, false and true
        return 1
    return _text_bytes(head) or _NUMBER_BYTES.get(head, 0)


_KEY = bytes(map(_text_bytes, range(256)))
"""By head: the bytes of a short text, head included; 0 for all else."""

_INNERMOST = bytes(map(_plain_bytes, range(256)))
"""By head: the bytes of a value whose head says them, head included; 0 for all else."""

_PLAIN = bytes(1 if head in (0x80, 0x90) else plain for head, plain in enumerate(_INNERMOST))
"""The same where one container more may be: then an empty one is as plain as a number."""


def check_shape(body: bytes) -> None:
    """Raise ProtocolError unless `body` is one msgpack map within the protocol's limits.

    Refused are too deep, too long and too many containers, map keys that are not text, extension
    types, timestamps among them, and a body that ends before or after its map. Whether text is
    UTF-8 is left to the decoder.
    """
    try:
        if not (0x80 <= body[0] <= 0x8F or 0xDE <= body[0] <= 0xDF):
            raise ProtocolError("A frame whose body is no msgpack map.")
        end = _sized(body, 0, 0, [MAX_ENTRIES])
    except IndexError:
        end = -1
    if end != len(body):
        raise ProtocolError("A frame whose length is not the length of the msgpack map in it.")


def _sized(body: bytes, at: int, depth: int, left: list[int]) -> int:
    """Where the value at `at` ends, whose head does not say its bytes; `depth` containers are around it.

    `left` holds how many entries the frame may still have.
    """
    head = body[at]
    if head <= 0x8F:
        return _map(body, at + 1, head & 0x0F, depth + 1, left)
    if head <= 0x9F:
        return _array(body, at + 1, head & 0x0F, depth + 1, left)
    size_bytes = _SIZE_BYTES.get(head)
    if size_bytes is None:
        raise ProtocolError(f"msgpack's type 0x{head:02x} is no part of the protocol: times are integers.")
    start = at + 1 + size_bytes
    size = int.from_bytes(body[at + 1 : start], "big")
    if head <= 0xDB:
        return start + size
    return (_array if head <= 0xDD else _map)(body, start, size, depth + 1, left)


def _enter(length: int, depth: int, left: list[int]) -> None:
    if depth > MAX_DEPTH:
        raise ProtocolError(f"Nesting deeper than {MAX_DEPTH}.")
    if length > MAX_LENGTH:
        raise ProtocolError(f"A map or array of {length} entries; up to {MAX_LENGTH} are taken.")
    left[0] -= length
    if left[0] < 0:
        raise ProtocolError(f"More than {MAX_ENTRIES} entries in the maps and arrays of one frame.")


def _array(body: bytes, at: int, length: int, depth: int, left: list[int]) -> int:
    _enter(length, depth, left)
    plain_bytes = _PLAIN if depth < MAX_DEPTH else _INNERMOST
    for _ in range(length):
        plain = plain_bytes[body[at]]
        at = at + plain if plain else _sized(body, at, depth, left)
    return at


def _map(body: bytes, at: int, length: int, depth: int, left: list[int]) -> int:
    _enter(length, depth, left)
    plain_bytes = _PLAIN if depth < MAX_DEPTH else _INNERMOST
    for _ in range(length):
        short = _KEY[body[at]]
        if short:
            at += short
        elif body[at] in _TEXT:
            at = _sized(body, at, depth, left)
        else:
            raise ProtocolError("A map key that is not text.")
        plain = plain_bytes[body[at]]
        at = at + plain if plain else _sized(body, at, depth, left)
    return at
