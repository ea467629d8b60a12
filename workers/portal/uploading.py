"""`portal.upload`: the bytes of a file, chunk by chunk, each an object of its own until all are there.

So a chunk can come to any worker, be sent again, and cost nobody more memory than itself. One that comes
before its turn waits for it (`turns.py`), so several can be sent at a time.
"""

from protocol.errors import (
    ALREADY_FINISHED,
    INVALID_REQUEST,
    QUOTA_EXCEEDED,
    TASK_NOT_FOUND,
    WRONG_OFFSET,
    RequestError,
)
from protocol.messages.portal import NextOffset, Submit, Upload, Uploaded
from storage.files import QuotaExceeded, part_name
from storage.tasks import TaskNotFound, TaskOver, WrongOffset
from workers.portal.reading import state_for
from workers.portal.room import PortalRoom, handlers
from workers.requests import Call


async def begin_upload(room: PortalRoom, data: Submit, task_id: str, user_id: str) -> int | None:
    """Take room for a file, and its bytes where they came along. Answers how many are to come, or None.

    Raises RequestError QUOTA_EXCEEDED.
    """
    assert data.file_name is not None, "checked by Submit"
    assert data.size is not None, "checked by Submit"
    try:
        await room.files.reserve(task_id, user_id, data.file_name, data.size)
    except QuotaExceeded:
        raise RequestError(QUOTA_EXCEEDED) from None
    if data.file_data is None and data.size > 0:
        return data.size
    await room.objects.put(part_name(task_id, 0), data.file_data or b"")
    return None


async def discard_upload(room: PortalRoom, file_id: str) -> None:
    """Remove a file that is not to be, with its parts."""
    file = await room.files.get(file_id)
    if file is not None:
        await room.files.remove(file)


@handlers.handles(Upload)
async def upload(room: PortalRoom, call: Call[Upload]) -> Uploaded:
    """Store a chunk, then note it; with the last one the task can be worked on."""
    data = call.data
    state = await room.turns.come(await state_for(room, call, data.task_id), data.offset)
    if state.upload_offset is not None and state.upload_bytes is not None:
        if state.upload_offset not in (data.offset, data.offset + len(data.chunk)):
            raise _wrong(state.upload_offset)
        if data.offset == state.upload_offset:
            if data.offset + len(data.chunk) > state.upload_bytes:
                raise RequestError(
                    INVALID_REQUEST, f"`chunk` goes beyond the file's {state.upload_bytes} bytes"
                )
            await room.objects.put(part_name(data.task_id, data.offset), data.chunk)
    try:
        offset, is_complete = await room.tasks.advance(state, data.offset, len(data.chunk))
    except TaskNotFound:
        raise RequestError(TASK_NOT_FOUND) from None
    except TaskOver:
        raise RequestError(ALREADY_FINISHED) from None
    except WrongOffset as wrong:
        raise _wrong(wrong.offset) from None
    room.turns.reached(data.task_id, offset)
    return Uploaded(upload_offset=offset, complete=is_complete)


def _wrong(offset: int) -> RequestError:
    words = f"The next bytes belong at offset {offset}."
    return RequestError(WRONG_OFFSET, words, data=NextOffset(upload_offset=offset))
