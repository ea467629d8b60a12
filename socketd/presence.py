"""Who waits at this node: keeps the places of those whose connection is open."""

import asyncio

import structlog

from protocol.envelope import Address
from socketd.registry import Registry
from storage.errors import StoreAway
from storage.nodes import Nodes
from storage.tickets import Tickets

log = structlog.get_logger(__name__)

MOST_PER_CALL = 250
"""Tickets in one call: it keeps Redis for 2 ms then, and others wait meanwhile."""

LONGEST_S = 60.0
SHARE_OF_TTL = 3
"""A place outlives this many missed looks."""

SHOWS_S = 5.0
"""Between two times that the node shows that it lives."""


class Presence:
    """Tells the waiting room every now and then that the node lives, and which tickets are streamed here.

    `first_number` is that of the node's first connection.
    """

    def __init__(
        self,
        tickets: Tickets,
        nodes: Nodes,
        registry: Registry,
        server_id: str,
        first_number: int,
        ticket_ttl_s: float,
    ) -> None:
        self._tickets = tickets
        self._nodes = nodes
        self._registry = registry
        self._server_id = server_id
        self._first_number = first_number
        self._every_s = min(LONGEST_S, ticket_ttl_s / SHARE_OF_TTL)

    async def begin(self) -> None:
        """Tell that who was connected to an earlier process of this server id is gone. Raises StoreAway."""
        await self._nodes.lives(self._server_id, self._first_number)

    async def run(self) -> None:
        """Tell for as long as the process lives. Runs as a side task."""
        clock = asyncio.get_running_loop().time
        due_s = clock() + self._every_s
        while True:
            await asyncio.sleep(min(SHOWS_S, self._every_s))
            try:
                # Who stood still for too long was taken for gone, and those who are here were passed over.
                is_known = await self._nodes.lives(self._server_id, self._first_number)
                if not is_known or clock() >= due_s:
                    due_s = clock() + self._every_s
                    await self._tell_present()
            except StoreAway as error:
                log.warning("cannot keep places", cause=str(error))

    async def end(self) -> None:
        """Tell that everybody who was connected here is gone. Raises StoreAway."""
        await self._nodes.is_gone(self._server_id)

    async def _tell_present(self) -> None:
        streamed = [
            (connection.ticket, Address(self._server_id, connection.id))
            for connection in self._registry
            if connection.ticket is not None
        ]
        for start in range(0, len(streamed), MOST_PER_CALL):
            await self._tickets.touch(streamed[start : start + MOST_PER_CALL])
