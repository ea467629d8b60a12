"""One connection to Redis for what is hot: commands go out as they come, replies are taken as they come.

redis-py makes the connection, with all that a URL can ask for; then this takes its bytes over. A command
through redis-py costs more than 100 µs of Python, here about 5, and the queues live on commands
(docs/decisions/0002). Nothing is ever sent twice.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import DefaultParser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, InvalidResponse, TimeoutError

Argument = str | bytes | int | float
Command = tuple[Argument, ...]


LOST = "The connection to Redis was lost."


class Executor(Protocol):
    """Sends one command and answers its reply. Raises redis' errors."""

    async def execute_command(self, *args: Any) -> Any:
        """The reply to one command."""
        ...


class _Sent(NamedTuple):
    """Commands that went out together: how many, their replies so far, and who waits for all of them."""

    commands: int
    sent_s: float
    replies: list[Any]
    outcome: asyncio.Future[list[Any]]


class Wire(asyncio.Protocol):
    """A connection to the Redis at `url`, made when it is first used and again after it was lost.

    A command that has no reply after `timeout_s` seconds ends the connection, and with it all that wait.
    Replies are as Redis sends them: bytes, integers, lists.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._loop: asyncio.AbstractEventLoop
        self._connecting = asyncio.Lock()
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[_Sent] = deque()
        self._watch: asyncio.TimerHandle | None = None

    # What its users call.

    async def execute_command(self, *args: Any) -> Any:
        """The reply to one command. Raises redis' ResponseError, ConnectionError or TimeoutError."""
        if self._transport is None:
            await self._connect()
        (reply,) = await self._send([args])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def execute_commands(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands that are sent together, a ResponseError for one that Redis refuses.

        Raises redis' ConnectionError or TimeoutError.
        """
        if not commands:
            return []
        if self._transport is None:
            await self._connect()
        replies = await self._send(commands)
        for reply in replies:
            if isinstance(reply, (ConnectionError, TimeoutError)):
                raise reply
        return replies

    async def aclose(self) -> None:
        """Close the connection; what waits for a reply gets a ConnectionError."""
        if self._transport is not None:
            self._transport.close()

    # What the loop calls.

    def data_received(self, data: bytes) -> None:
        """Take replies in the order of their commands."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            sent = self._waiting[0]
            sent.replies.append(reply)
            if len(sent.replies) == sent.commands:
                self._waiting.popleft()
                if not sent.outcome.done():  # whoever awaited it was cancelled
                    sent.outcome.set_result(sent.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all that wait that the outcome of their commands is unknown."""
        self._transport = self._connection = None
        self._fail(ConnectionError(LOST))

    # Its own.

    async def _connect(self) -> None:
        async with self._connecting:
            if self._transport is not None:
                return
            self._loop = asyncio.get_running_loop()
            connection = self._pool.make_connection()
            try:
                await connection.connect()
            except RuntimeError as error:  # uvloop's, for what was lost as soon as it was made
                raise ConnectionError(LOST) from error
            # The one place that reaches into redis-py; tests/storage/test_wire.py notices when it changes.
            transport = cast(asyncio.Transport, connection._writer.transport)
            transport.set_protocol(self)
            self._reader = hiredis.Reader(
                protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=False
            )
            self._connection, self._transport = connection, transport

    def _send(self, commands: Sequence[Sequence[Any]]) -> asyncio.Future[list[Any]]:
        """Write commands, all at once: each write is a system call. Answers what their replies come to."""
        outcome: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            outcome.set_exception(ConnectionError(LOST))
            return outcome
        packed = [hiredis.pack_command(tuple(command)) for command in commands]
        self._waiting.append(_Sent(len(packed), self._loop.time(), [], outcome))
        self._transport.write(b"".join(packed))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        return outcome

    def _look(self) -> None:
        """End a connection that has not replied in time; look again when the next could be late."""
        self._watch = None
        if not self._waiting:
            return
        left_s = self._waiting[0].sent_s + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        elif self._transport is not None:
            self._transport.abort()
            self._fail(TimeoutError(f"Redis did not reply within {self._timeout_s:g} s."))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for sent in waiting:
            if not sent.outcome.done():
                sent.outcome.set_exception(error)
