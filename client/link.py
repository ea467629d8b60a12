"""One live connection at a time over several nodes: reconnects, and asks again what can be asked again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ssl import SSLCertVerificationError, SSLContext

from client.connection import Connection, EventCallback
from client.errors import ConnectionLost, RequestFailed, TakenOver
from protocol.errors import GoodbyeCode
from protocol.messages import Message
from protocol.messages.connection import Goodbye, KickedOut

Endpoint = tuple[str, int]
"""Host and port of a node."""

RETRIED_STATUSES = frozenset({429, 503, 504})
"""Refused for now, or outcome unknown: asked again with the same key (docs/protocol.md, "Messages")."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0


def pause_s(failures: int, retry_after_ms: int | None) -> float:
    """How long to wait after the `failures`-th failure in a row, never less than the server asked for.

    At random within a growing range, so that a crowd that lost its node together does not come back
    together.
    """
    spread_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
    return (retry_after_ms or 0) / 1000 + random.uniform(0, spread_s)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the nodes are and how to connect to them; shared by any number of players."""

    endpoints: Sequence[Endpoint]
    name: str = "lobbyd-client"
    local_address: str | None = None
    ssl: SSLContext | None = None

    def other_than(self, last: Endpoint | None) -> Endpoint:
        """Any endpoint but the one that was tried last, if there is another."""
        others = [endpoint for endpoint in self.endpoints if endpoint != last]
        return random.choice(others or self.endpoints)


class Link:
    """A connection that is replaced when it breaks.

    `restore` makes a new connection what the old one was (it signs in again). A lost connection is
    replaced when the next request needs one, after `hold` at once. `on_end` is told when the link
    has ended, which is when the server says that coming back is of no use, or by `end`.
    """

    __slots__ = (
        "_connecting",
        "_failures",
        "_held",
        "_last",
        "_not_before_s",
        "_on_end",
        "_on_event",
        "_restore",
        "_restoring",
        "_route",
        "_trouble",
        "connection",
        "ended",
    )

    def __init__(
        self,
        route: Route,
        *,
        restore: Callable[[Connection], Awaitable[None]],
        on_event: EventCallback,
        on_end: Callable[[Exception], None],
    ) -> None:
        self._route = route
        self._restore, self._on_event, self._on_end = restore, on_event, on_end
        self._connecting = asyncio.Lock()
        self._restoring: asyncio.Task[None] | None = None
        self._last: Endpoint | None = None
        self._held = False
        self._failures = 0
        self._not_before_s = 0.0
        self._trouble: Exception | None = None
        self.connection: Connection | None = None
        self.ended: Exception | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that takes requests."""
        return self.connection is not None and self.connection.is_open

    async def request(self, message: Message, key: str | None, patience_s: float | None) -> Message:
        """Ask until there is an answer, over as many connections as it takes.

        Raises RequestFailed for a refusal that asking again will not change; what ended the link;
        and what went wrong last when there is no answer within `patience_s`.
        """
        trouble: Exception | None = None
        failures = 0
        try:
            async with asyncio.timeout(patience_s) as patience:
                while True:
                    connection = await self._connected()
                    try:
                        answer = await connection.request(message, key=key)
                    except ConnectionLost as lost:
                        trouble = lost
                    except (RequestFailed, TimeoutError) as refused:
                        trouble = refused
                        failures += 1
                        await asyncio.sleep(_pause_before_retry_s(refused, failures, patience.when()))
                    else:
                        self._failures = 0
                        return answer
        except TimeoutError:
            raise trouble or self._trouble or TimeoutError(f"No answer within {patience_s} s.") from None

    def hold(self) -> None:
        """From now on replace a lost connection at once."""
        self._held = True
        if not self.is_open:
            self._replace()

    def end(self, error: Exception) -> None:
        """No more connections: requests raise `error` from now on. A second call changes nothing."""
        if self.ended is None:
            self.ended = error
            self._held = False
            self._on_end(error)

    def close(self, error: Exception) -> None:
        """`end`, and close the connection."""
        self.end(error)
        self._stop_restoring()
        if self.connection is not None:
            self.connection.close()

    def start_over(self) -> None:
        """Forget the connection and why the link ended: a new stay begins."""
        self._stop_restoring()
        self._retire()
        self.ended = None
        self._held = False

    async def _connected(self) -> Connection:
        while True:
            if self.ended is not None:
                raise self.ended.with_traceback(None)
            if self.connection is not None and self.connection.is_open:
                return self.connection
            async with self._connecting:
                if not self.is_open:
                    await self._try_next_endpoint()

    async def _try_next_endpoint(self) -> None:
        await asyncio.sleep(self._not_before_s - time.monotonic())
        if self.ended is not None:
            return
        self._last = host, port = self._route.other_than(self._last)
        try:
            await self._open(host, port)
        except SSLCertVerificationError as error:
            self.end(error)
        except RequestFailed as refused:
            if refused.status not in RETRIED_STATUSES:
                self.end(refused)
            self._note_failure(refused, refused.retry_after_ms)
        except ConnectionLost as lost:
            self._judge(lost.goodbye)
            self._note_failure(lost, _retry_after_ms(lost))
        except OSError as error:
            self._note_failure(ConnectionLost(f"{host}:{port} cannot be reached: {error}"), None)

    async def _open(self, host: str, port: int) -> None:
        route = self._route
        connection = await Connection.open(
            host, port, name=route.name, local_address=route.local_address, ssl=route.ssl
        )
        self._retire()
        if not connection.is_open:
            raise await connection.closed
        connection.on_event, connection.on_lost = self._take_event, self._take_loss
        try:
            await self._restore(connection)
        except BaseException:
            connection.on_event = connection.on_lost = None
            connection.abort()
            raise
        self.connection, self._trouble = connection, None
        if self.ended is not None:
            connection.abort()

    def _retire(self) -> None:
        """Stop listening to the old connection: being replaced, it may hear that it was taken over."""
        old, self.connection = self.connection, None
        if old is not None:
            old.on_event = old.on_lost = None
            if not old.in_flight:
                old.close()

    def _take_event(self, name: str, event: Message) -> None:
        if isinstance(event, KickedOut):
            self.end(TakenOver(event.reason, event.message))
        elif isinstance(event, Goodbye):
            self._judge(event)
        else:
            self._failures = 0
        self._on_event(name, event)

    def _take_loss(self, lost: ConnectionLost) -> None:
        self._note_failure(lost, _retry_after_ms(lost))
        if self._held:
            self._replace()

    def _judge(self, goodbye: Goodbye | None) -> None:
        """End here when the server says that coming back is of no use."""
        if goodbye is None or goodbye.reconnect:
            return
        if goodbye.code == GoodbyeCode.TAKEN_OVER.code:
            self.end(TakenOver(goodbye.code, goodbye.message))
        else:
            self.end(ConnectionLost(goodbye.message, goodbye))

    def _note_failure(self, trouble: Exception, retry_after_ms: int | None) -> None:
        self._trouble = trouble
        self._failures += 1
        self._not_before_s = time.monotonic() + pause_s(self._failures, retry_after_ms)

    def _replace(self) -> None:
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.get_running_loop().create_task(self._replaced())

    def _stop_restoring(self) -> None:
        if self._restoring is not None:
            self._restoring.cancel()

    async def _replaced(self) -> None:
        try:
            await self._connected()
        except Exception:
            if self.ended is None:
                raise


def _pause_before_retry_s(
    refused: RequestFailed | TimeoutError, failures: int, until_s: float | None
) -> float:
    """How long to wait before asking again.

    Raises `refused` when asking again will not change it, or not before `until_s` on the loop's clock.
    """
    if isinstance(refused, TimeoutError):
        return pause_s(failures, None)
    if refused.status not in RETRIED_STATUSES:
        raise refused
    wait_s = pause_s(failures, refused.retry_after_ms)
    if until_s is not None and asyncio.get_running_loop().time() + wait_s >= until_s:
        raise refused
    return wait_s


def _retry_after_ms(lost: ConnectionLost) -> int | None:
    after = None if lost.goodbye is None else lost.goodbye.retry_after_ms
    return after if isinstance(after, int) else None
