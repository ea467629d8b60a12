"""Whose connection is gone: said to sessions, so that nothing is sent after it, and to the waiting room."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from protocol.envelope import Address
from storage.errors import StoreAway
from storage.tickets import Tickets
from storage.whereabouts import Whereabouts

Gone = list[tuple[str, Address]]

log = structlog.get_logger(__name__)

MOST_PER_CALL = 250
AWAY_PAUSE_S = 0.5
SAYING_S = 2.0


class Departures:
    """Gathers closed connections of signed-in users and of tickets, and says so, in one call for many."""

    def __init__(self, whereabouts: Whereabouts, tickets: Tickets, server_id: str) -> None:
        self._whereabouts = whereabouts
        self._tickets = tickets
        self._server_id = server_id
        self._gone: Gone = []
        self._unstreamed: Gone = []
        self._gathered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def left(self, user_id: str, connection_id: int) -> None:
        """A user's connection is closed."""
        self._gather(self._gone, user_id, connection_id)

    def unstreamed(self, tid: str, connection_id: int) -> None:
        """The connection that a ticket's events went to is closed."""
        self._gather(self._unstreamed, tid, connection_id)

    async def run(self) -> None:
        """Say it for as long as the process lives. Runs as a side task."""
        while True:
            await self._gathered.wait()
            try:
                await self._say(self._gone, self._whereabouts.left)
                await self._say(self._unstreamed, self._tickets.leave)
            except StoreAway as error:
                log.warning("cannot say who left", cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            if not self._gone and not self._unstreamed:
                self._gathered.clear()
                self._idle.set()

    def _gather(self, gone: Gone, name: str, connection_id: int) -> None:
        gone.append((name, Address(self._server_id, connection_id)))
        self._idle.clear()
        self._gathered.set()

    @staticmethod
    async def _say(gone: Gone, say: Callable[[Gone], Awaitable[object]]) -> None:
        if some := gone[:MOST_PER_CALL]:
            await say(some)
            del gone[: len(some)]

    async def said(self) -> None:
        """Wait until all is said, but not long: where the node itself is gone, so are its connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAYING_S):
                await self._idle.wait()
