"""Callers over real sockets that always wait for one answer: a closed loop.

Built from protocol/ alone and without a future or a timer for each request, since the generator shares
the machine with what it measures.
"""

import asyncio
import time
from typing import cast

import msgspec

from protocol.codec import encode
from protocol.frames import FrameReader, frame
from protocol.messages import REQUESTS, Message
from protocol.messages.connection import PROTOCOL_VERSION, Hello

RECEIVE_LIMIT_BYTES = 1_048_576
SETTLE_S = 0.3
"""A load runs for this long before it is measured."""

NAMES = {declared.data: declared.name for declared in REQUESTS.values()}


class _Reply(msgspec.Struct):
    """What a caller looks at in a reply."""

    type: str
    id: int = 0
    status: int = 0


_decoder = msgspec.msgpack.Decoder(_Reply)


class Meter:
    """Counts answers and keeps how long each took, in seconds."""

    def __init__(self) -> None:
        self.running = False
        self.took_s: list[float] = []

    async def measure(self, callers: "list[Caller]", seconds: float) -> tuple[float, list[float]]:
        """Load with these callers; answers a second, and what each took in seconds."""
        self.running = True
        for caller in callers:
            caller.ask()
        await asyncio.sleep(SETTLE_S)
        took_s: list[float] = []
        self.took_s = took_s
        start_s = time.perf_counter()
        await asyncio.sleep(seconds)
        self.took_s = []
        per_second = len(took_s) / (time.perf_counter() - start_s)
        self.running = False
        await asyncio.gather(*(caller.idle.wait() for caller in callers))
        return per_second, took_s


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, while its meter runs."""

    def __init__(self, meter: Meter, message: Message, status: int) -> None:
        self._meter = meter
        self._name, self._message, self._status = NAMES[type(message)], message, status
        self._frames = FrameReader(RECEIVE_LIMIT_BYTES)
        self._asked_s = 0.0
        self._id = 0
        self.idle = asyncio.Event()
        self.failure: str | None = None

    @classmethod
    async def open(cls, meter: Meter, host: str, port: int, message: Message, status: int) -> "Caller":
        """Connect and say hello. `message` is what to ask, `status` the answer that counts."""
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(lambda: cls(meter, message, status), host, port)
        caller._send("hello", Hello(protocol=PROTOCOL_VERSION, client="bench"))
        await caller.idle.wait()
        return caller

    def ask(self) -> None:
        """Send the request."""
        self.idle.clear()
        self._asked_s = time.perf_counter()
        self._send(self._name, self._message)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _send(self, name: str, message: Message) -> None:
        self._id += 1
        self._transport.write(frame(encode({"type": name, "id": self._id, "data": message})))

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take the answer and ask again."""
        for body in self._frames.feed(data):
            reply = _decoder.decode(body)
            if reply.type == "reply":
                self._take(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """A caller without a connection asks nothing more."""
        self.failure = self.failure or "the node closed the connection"
        self.idle.set()

    def _take(self, reply: _Reply) -> None:
        if self._id > 1 and reply.status != self._status:
            self.failure = f"{self._name} was answered {reply.status}"
        if self._id > 1:
            self._meter.took_s.append(time.perf_counter() - self._asked_s)
        if self._meter.running and self.failure is None and self._id > 1:
            self.ask()
        else:
            self.idle.set()
