"""Frames: a 4-byte big-endian length, then that many bytes.

A frame's header alone decides whether it is taken, so that a length of 4 GiB costs four bytes.
"""

from struct import Struct

from protocol.errors import ProtocolError

HEADER = Struct(">I")
HEADER_BYTES = HEADER.size


def frame(body: bytes) -> bytes:
    """Return `body` with its header before it."""
    return HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frame bodies; keeps only what is not whole yet.

    `limit_bytes` is the longest body taken; it may be changed between calls, as signing in does.
    """

    __slots__ = ("_needed_bytes", "_rest", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._rest: bytearray | None = None
        self._needed_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return 0 if self._rest is None else len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take received bytes and return the bodies of the frames that are now whole.

        Raises ProtocolError for a header that says zero or more than `limit_bytes`. Bodies that
        were whole before the bad header are lost with the connection.
        """
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._needed_bytes:
                return []
            data = bytes(self._rest)
            self._rest = None
        bodies, start = self._cut(data)
        if start < len(data):
            self._rest = bytearray(data[start:])
        return bodies

    def _cut(self, data: bytes) -> tuple[list[bytes], int]:
        """The whole bodies at the beginning of `data`, and where what is not whole begins."""
        bodies: list[bytes] = []
        start, total = 0, len(data)
        while total - start >= HEADER_BYTES:
            (length,) = HEADER.unpack_from(data, start)
            if not 0 < length <= self.limit_bytes:
                raise ProtocolError(
                    f"A frame of {length} bytes; from 1 to {self.limit_bytes} are taken here."
                )
            end = start + HEADER_BYTES + length
            if end > total:
                self._needed_bytes = end - start
                return bodies, start
            bodies.append(data[start + HEADER_BYTES : end])
            start = end
        self._needed_bytes = HEADER_BYTES
        return bodies, start
