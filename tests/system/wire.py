"""A socket without the client library's manners: bytes out as they are, whole messages in."""

import asyncio
from collections.abc import Iterable
from typing import Any, Self

import msgspec

from client import Endpoint
from protocol.frames import FrameReader, frame

HEARING_S = 60.0
HELLO = {"protocol": 1, "client": "raw"}

Fields = dict[str, Any]


def envelope(name: object, request_id: object, data: object, **more: object) -> bytes:
    """A request's bytes, right or wrong."""
    return frame(msgspec.msgpack.encode({"type": name, "id": request_id, "data": data, **more}))


class Wire:
    """One socket to a node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = FrameReader(16 * 1024 * 1024)
        self._messages: list[Fields] = []

    @classmethod
    async def to(cls, endpoint: Endpoint) -> Self:
        """Connect, and say nothing."""
        return cls(*await asyncio.open_connection(*endpoint))

    @classmethod
    async def greeted(cls, endpoint: Endpoint) -> Self:
        """Connect and say hello."""
        wire = await cls.to(endpoint)
        await wire.ask("hello", HELLO)
        return wire

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def ask(self, name: str, data: object, request_id: int = 1, **more: object) -> Fields:
        """Send a request and answer its reply, whole; events before it are passed over."""
        self.send(envelope(name, request_id, data, **more))
        return await self.reply(request_id)

    async def reply(self, request_id: int = 1) -> Fields:
        """The reply to a request."""
        while True:
            message = await self.message()
            if message["type"] == "reply":
                assert message["id"] == request_id, message
                return message

    async def event(self, name: str) -> Fields:
        """The data of the next event of this name; other messages are passed over."""
        while True:
            message = await self.message()
            if message["type"] == name:
                data: Fields = message["data"]
                return data

    async def message(self) -> Fields:
        """The next message. Raises EOFError where the node closes instead."""
        while not self._messages:
            async with asyncio.timeout(HEARING_S):
                data = await self._reader.read(65_536)
            if not data:
                raise EOFError
            self._messages += [msgspec.msgpack.decode(body) for body in self._frames.feed(data)]
        return self._messages.pop(0)

    async def goodbye(self) -> Fields:
        """The node's GOODBYE, after which it has closed."""
        data = await self.event("GOODBYE")
        await self.closed()
        return data

    async def closed(self) -> list[Fields]:
        """Wait until the node has closed. Answers what it still said."""
        last = []
        try:
            while True:
                last.append(await self.message())
        except (EOFError, ConnectionError):
            return last

    def leave(self) -> None:
        """Drop the socket."""
        self._writer.transport.abort()


def leave(wires: Iterable[Wire]) -> None:
    """Drop the sockets."""
    for wire in wires:
        wire.leave()
