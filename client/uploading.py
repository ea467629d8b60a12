"""A file's bytes to the portal: several chunks at a time, and after trouble on from where they are wanted."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import BinaryIO, cast

from msgspec import UNSET

from client.errors import RequestFailed
from protocol.errors import WRONG_OFFSET
from protocol.messages import Message
from protocol.messages.portal import Status, TaskView, Upload

CHUNK_BYTES = 1_000_000
AT_A_TIME = 2
"""Chunks under way: while one is stored, the next comes. More were not faster (docs/performance.md)."""

Ask = Callable[[Message], Awaitable[Message]]


async def send_file(ask: Ask, task_id: str, file: BinaryIO, offset: int) -> None:
    """Send a file from `offset` to its end. Raises what `ask` raises, and what reading the file raises."""
    while (refused := await _send_on(ask, task_id, file, offset)) is not None:
        view = cast(TaskView, await ask(Status(task_id=task_id)))
        if view.upload_offset == offset:
            raise refused
        if view.upload_offset is UNSET:
            return
        offset = view.upload_offset


async def _send_on(ask: Ask, task_id: str, file: BinaryIO, offset: int) -> RequestFailed | None:
    """Send until the end, or until bytes were wanted from elsewhere. Nothing is under way afterwards."""
    under_way: deque[asyncio.Future[Message]] = deque()
    try:
        while True:
            while len(under_way) < AT_A_TIME and (chunk := await asyncio.to_thread(_read, file, offset)):
                upload = Upload(task_id=task_id, offset=offset, chunk=chunk)
                under_way.append(asyncio.ensure_future(ask(upload)))
                offset += len(chunk)
            if not under_way:
                return None
            await under_way.popleft()
    except RequestFailed as refused:
        if refused.code != WRONG_OFFSET.code:
            raise
        await asyncio.gather(*under_way, return_exceptions=True)
        return refused
    finally:
        for sending in under_way:
            sending.cancel()


def _read(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(CHUNK_BYTES)
