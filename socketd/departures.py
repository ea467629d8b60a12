"""Whose connection is gone: said to the sessions, so that nothing is sent after it."""

import asyncio
import contextlib

import structlog

from protocol.envelope import Address
from storage.errors import StoreAway
from storage.whereabouts import Whereabouts

log = structlog.get_logger(__name__)

MOST_PER_CALL = 250
AWAY_PAUSE_S = 0.5
SAYING_S = 2.0


class Departures:
    """Gathers closed connections of signed-in users and says so, in one call for many."""

    def __init__(self, whereabouts: Whereabouts, server_id: str) -> None:
        self._whereabouts = whereabouts
        self._server_id = server_id
        self._gone: list[tuple[str, Address]] = []
        self._gathered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def left(self, user_id: str, connection_id: int) -> None:
        """A user's connection is closed."""
        self._gone.append((user_id, Address(self._server_id, connection_id)))
        self._idle.clear()
        self._gathered.set()

    async def run(self) -> None:
        """Say it for as long as the process lives. Runs as a side task."""
        while True:
            await self._gathered.wait()
            some = self._gone[:MOST_PER_CALL]
            try:
                await self._whereabouts.left(some)
            except StoreAway as error:
                log.warning("cannot say who left", cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            del self._gone[: len(some)]
            if not self._gone:
                self._gathered.clear()
                self._idle.set()

    async def said(self) -> None:
        """Wait until all is said, but not long: where the node itself is gone, so are its connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAYING_S):
                await self._idle.wait()
