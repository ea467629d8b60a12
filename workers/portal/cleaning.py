"""Removing uploads that nobody finished."""

import asyncio
import contextlib

import structlog

from storage.errors import StoreAway
from storage.files import File, Files
from storage.tasks import TaskOver, Tasks, TaskStatus
from storage.tickets import Record
from workers.portal.line import Change, Tell

log = structlog.get_logger(__name__)

PERIOD_S = 60.0
RECORD_TTL_S = 60.0


class Cleaning:
    """Looks for unfinished uploads; any number of workers may."""

    def __init__(self, files: Files, tasks: Tasks, tell: Tell, upload_ttl_s: float) -> None:
        self._files = files
        self._tasks = tasks
        self._tell = tell
        self._upload_ttl_s = upload_ttl_s

    async def run(self) -> None:
        """Look for as long as the process lives. Runs as a side task."""
        while True:
            try:
                await self.clean()
            except StoreAway as error:
                log.warning("cannot remove unfinished uploads", cause=str(error))
            await asyncio.sleep(min(PERIOD_S, self._upload_ttl_s))

    async def clean(self) -> None:
        """Remove what is too old, end its task and tell its user. Raises StoreAway."""
        last = ""
        while found := await self._files.unfinished(self._upload_ttl_s, last):
            last = found[-1].file_id
            for file in found:
                await self._clean(file)

    async def _clean(self, file: File) -> None:
        state = await self._tasks.get(file.file_id)
        if state is not None and state.upload_offset is None and not state.status.is_over:
            return  # all of it has come, and a worker is at it or will be
        if state is not None:
            with contextlib.suppress(TaskOver):
                await self._tasks.cancel(state, Record(f"cleaning\n{file.file_id}", RECORD_TTL_S))
                self._tell([Change(state.user_id, state.task_id, TaskStatus.CANCELLED)])
        await self._files.remove(file)
        log.info("removed an unfinished upload", file=file.file_id)
