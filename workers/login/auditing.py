"""Moves the audit log to SQL, while this worker holds the lease; the next takes over when it dies."""

import asyncio

import structlog

from storage.audit import BATCH, Audit
from storage.database import Database
from storage.errors import StoreAway

log = structlog.get_logger(__name__)

PAUSE_S = 0.5
LEASE_S = 3.0


class Auditing:
    """The side task that keeps the durable audit log up with the one that people look at."""

    def __init__(self, audit: Audit, database: Database, boot_id: str) -> None:
        self._audit = audit
        self._database = database
        self._boot_id = boot_id

    async def run(self) -> None:
        """Move what there is, for as long as the process lives."""
        while True:
            try:
                is_more = await self._audit.lead(self._boot_id, LEASE_S) and await self._drain()
            except StoreAway as error:
                log.warning("the audit log waits", cause=str(error))
                is_more = False
            if not is_more:
                await asyncio.sleep(PAUSE_S)

    async def _drain(self) -> bool:
        return await self._audit.drain(self._database) == BATCH
