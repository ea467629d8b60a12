"""A node's stand-in for the client under test: a real socket on the server's half of `protocol`.

What it does not answer by itself waits in `Peer.inbox` for the test to answer. Run as a program it
says its port and serves until its standard input ends.
"""

import asyncio
import sys
from collections.abc import Callable
from ssl import SSLContext
from typing import Self, cast

import msgspec

from protocol.connection import (
    BadRequest,
    RawRequest,
    ServerConnection,
    error_frame,
    goodbye_frame,
    reply_frame,
)
from protocol.errors import ErrorKind, GoodbyeCode, RequestError
from protocol.frames import frame
from protocol.messages import REQUESTS, Message
from protocol.messages.connection import PROTOCOL_VERSION, HelloReply, Pong

MAX_FRAME_BYTES = 1024 * 1024


class PeerConnection(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, peer: "Peer") -> None:
        self._peer = peer
        self._protocol = ServerConnection(MAX_FRAME_BYTES)
        self.transport: asyncio.Transport
        self.closed = asyncio.Event()
        self.seen: list[RawRequest] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._peer.connections.append(self)

    def data_received(self, data: bytes) -> None:
        for request in self._protocol.receive(data):
            assert not isinstance(request, BadRequest), request.error
            self.seen.append(request)
            received = Received(self, request)
            self._peer.answers.get(request.type, self._peer.inbox.put_nowait)(received)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def event(self, name: str, **data: object) -> None:
        self.write({"type": name, "data": data})

    def goodbye(self, code: GoodbyeCode, retry_after_ms: int | None = None) -> None:
        self.transport.write(goodbye_frame(code, retry_after_ms=retry_after_ms))

    def write(self, fields: dict[str, object]) -> None:
        self.transport.write(frame(msgspec.msgpack.encode(fields)))


class Received:
    """A request, and the connection to answer it on."""

    def __init__(self, connection: PeerConnection, request: RawRequest) -> None:
        self.connection = connection
        self.request = request

    def reply(self, data: Message) -> None:
        status = REQUESTS[self.request.type].status
        self.connection.transport.write(reply_frame(self.request.id, status, data))

    def refuse(self, kind: ErrorKind, retry_after_ms: int | None = None) -> None:
        error = RequestError(kind, retry_after_ms=retry_after_ms)
        self.connection.transport.write(error_frame(self.request.id, error))


Answer = Callable[[Received], None]


class Peer:
    """Listens on a free port of 127.0.0.1. Answers hello and ping, and what `answers` names."""

    def __init__(
        self, server_id: str = "SOCK001", keepalive_sec: float = 15.0, ssl: SSLContext | None = None
    ) -> None:
        self.server_id = server_id
        self._keepalive_sec = keepalive_sec
        self._ssl = ssl
        self._server: asyncio.Server
        self.connections: list[PeerConnection] = []
        self.inbox: asyncio.Queue[Received] = asyncio.Queue()
        self.answers: dict[str, Answer] = {"hello": self._greet, "ping": self._pong}
        self.endpoint = ("127.0.0.1", 0)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: PeerConnection(self), *self.endpoint, ssl=self._ssl, backlog=1024
        )
        self.endpoint = ("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for connection in self.connections:
            connection.transport.abort()

    async def next(self, name: str) -> Received:
        """The next request that nothing answered yet, which must be a `name`."""
        received = await self.inbox.get()
        assert received.request.type == name
        return received

    def seen(self, name: str) -> list[RawRequest]:
        """Every `name` that came, on any connection, in order of connections."""
        return [request for one in self.connections for request in one.seen if request.type == name]

    def _greet(self, hello: Received) -> None:
        hello.reply(
            HelloReply(
                server_id=self.server_id,
                protocol=PROTOCOL_VERSION,
                max_frame_bytes=MAX_FRAME_BYTES,
                keepalive_sec=self._keepalive_sec,
                server_time=1_734_500_000_000,
            )
        )

    def _pong(self, ping: Received) -> None:
        ping.reply(Pong(server_time=1_734_500_000_000))


async def _serve() -> None:
    async with Peer() as peer:
        print(peer.endpoint[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
