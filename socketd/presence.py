"""Who waits at this node: keeps the places of those whose connection is open."""

import asyncio

import structlog

from protocol.envelope import Address
from socketd.registry import Registry
from storage.errors import StoreAway
from storage.tickets import Tickets

log = structlog.get_logger(__name__)

MOST_PER_CALL = 250
"""Tickets in one call: it keeps Redis for 2 ms then, and others wait meanwhile."""

LONGEST_S = 60.0
SHARE_OF_TTL = 3
"""A place outlives this many missed looks."""


class Presence:
    """Tells the waiting room, every now and then, which tickets are still streamed here."""

    def __init__(self, tickets: Tickets, registry: Registry, server_id: str, ticket_ttl_s: float) -> None:
        self._tickets = tickets
        self._registry = registry
        self._server_id = server_id
        self._every_s = min(LONGEST_S, ticket_ttl_s / SHARE_OF_TTL)

    async def run(self) -> None:
        """Tell for as long as the process lives. Runs as a side task."""
        while True:
            await asyncio.sleep(self._every_s)
            streamed = [
                (connection.ticket, Address(self._server_id, connection.id))
                for connection in self._registry
                if connection.ticket is not None
            ]
            try:
                for start in range(0, len(streamed), MOST_PER_CALL):
                    await self._tickets.touch(streamed[start : start + MOST_PER_CALL])
            except StoreAway as error:
                log.warning("cannot keep places", cause=str(error))
