"""Writing tasks to the database, in one worker at a time; the next takes over when it dies."""

import asyncio

import structlog

from storage.errors import StoreAway
from storage.files import Files
from storage.tasks import TaskArchive

log = structlog.get_logger(__name__)

LEASE_S = 3.0
PAUSE_S = 0.25
"""A task is in the database so soon after it changed."""


class Archiving:
    """Keeps the database up to date, for as long as this worker holds the lease."""

    def __init__(self, archive: TaskArchive, files: Files, boot_id: str) -> None:
        self._archive = archive
        self._files = files
        self._boot_id = boot_id

    async def run(self) -> None:
        """Write for as long as the process lives. Runs as a side task."""
        while True:
            try:
                await self._write()
            except StoreAway as error:
                log.warning("cannot write tasks to the database", cause=str(error))
            await asyncio.sleep(LEASE_S / 3)

    async def _write(self) -> None:
        while await self._archive.lead(self._boot_id, LEASE_S):
            changes = await self._archive.save(self._boot_id)
            restored = await self._archive.restore(self._files)  # may take longer than the lease
            if restored:
                log.warning("Redis had lost tasks and has them again", count=restored)
            if not changes:
                await asyncio.sleep(PAUSE_S)
