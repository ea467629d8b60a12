"""`portal.submit` and `portal.cancel`: asking for slow work, and giving it up."""

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec import UNSET

from protocol.codec import encode
from protocol.errors import (
    ALREADY_FINISHED,
    BUSY,
    BUSY_RETRY_MS,
    TASK_NOT_FOUND,
    TOO_MANY_TASKS,
    RequestError,
)
from protocol.messages import Nothing
from protocol.messages.portal import CancelTask, Channel, Submit, Submitted, TaskType
from storage.policies import Question
from storage.tasks import Accepted, NewTask, TaskNotFound, TaskOver, TaskQueueFull, TaskStatus, TooManyTasks
from storage.tickets import Record
from workers.portal.announcing import announce_urgent
from workers.portal.data_processing import DataProcessing
from workers.portal.file_upload import FileUpload
from workers.portal.line import Change
from workers.portal.notification import Notify
from workers.portal.reading import state_for
from workers.portal.room import PortalRoom, handlers, tell
from workers.portal.uploading import begin_upload, discard_upload
from workers.requests import Call, record

SUFFIX_LENGTH = 10

TO_GROUPS = Question("notification:send", "notification:groups", {})
BY_EMAIL = Question("notification:send", "notification:email", {})

Accept = Callable[..., Awaitable[Accepted]]
"""Accepts the task whose input, encoded, and bytes to come it is called with."""


@handlers.handles(Submit)
async def submit(room: PortalRoom, call: Call[Submit]) -> Submitted:
    """Accept a task. Files are stored first, so that an accepted task has all that it needs."""
    data, user_id = call.data, await room.gate.acting_for(call, call.data.user_id)
    kept = record(call, user_id)
    task_id = name_task(call.envelope.sent_ms, user_id, kept)
    accept = partial(_accept, room, call, task_id, user_id, kept)
    match data.task_type:
        case TaskType.FILE_UPLOAD:
            return await _submit_file(room, data, task_id, user_id, accept)
        case TaskType.DATA_PROCESSING:
            assert data.source is not None, "checked by Submit"
            assert data.operation is not None, "checked by Submit"
            accepted = await accept(encode(DataProcessing(data.source, data.operation)))
        case TaskType.NOTIFICATION:
            await _check_reach(room, call)
            accepted = await accept(encode(_notify(call.data, user_id, call.envelope.sent_ms)))
    return Submitted(task_id=accepted.task_id, estimated_completion=accepted.estimated_at)


def name_task(sent_ms: int, user_id: str, kept: Record) -> str:
    """A task's id. A request that is delivered again gets the same one."""
    suffix = hashlib.sha256(kept.name.encode()).hexdigest()[:SUFFIX_LENGTH]
    return f"task_{sent_ms}_{user_id}_{suffix}"


@handlers.handles(CancelTask)
async def cancel(room: PortalRoom, call: Call[CancelTask]) -> Nothing:
    """Give a task up: its end is noted at once, and who works on it stops within a second."""
    state = await state_for(room, call, call.data.task_id)
    try:
        await room.tasks.cancel(state, record(call, state.task_id))
    except TaskNotFound:
        raise RequestError(TASK_NOT_FOUND) from None
    except TaskOver:
        raise RequestError(ALREADY_FINISHED) from None
    if state.status is TaskStatus.PENDING and state.task_type == TaskType.FILE_UPLOAD.value:
        await discard_upload(room, state.task_id)
    tell(room.telling, [Change(state.user_id, state.task_id, TaskStatus.CANCELLED, state.progress)])
    return Nothing()


async def _accept(
    room: PortalRoom,
    call: Call[Submit],
    task_id: str,
    user_id: str,
    kept: Record,
    message: bytes,
    held_bytes: int | None = None,
) -> Accepted:
    task = NewTask(task_id, user_id, call.data.priority, message, kept, held_bytes)
    try:
        accepted = await room.tasks.submit(call.data.task_type.value, task)
    except TooManyTasks:
        raise RequestError(TOO_MANY_TASKS) from None
    except TaskQueueFull:
        raise RequestError(BUSY, retry_after_ms=BUSY_RETRY_MS) from None
    await announce_urgent(room.outbox, call, accepted.task_id, user_id)
    return accepted


async def _submit_file(
    room: PortalRoom, data: Submit, task_id: str, user_id: str, accept: Accept
) -> Submitted:
    assert data.file_name is not None, "checked by Submit"
    assert data.size is not None, "checked by Submit"
    held_bytes = await begin_upload(room, data, task_id, user_id)
    message = encode(FileUpload(data.file_name, data.size, data.sha256))
    try:
        accepted = await accept(message, held_bytes)
    except RequestError:
        await discard_upload(room, task_id)
        raise
    if accepted.task_id != task_id:  # the same key was used before, and that task has its own bytes
        await discard_upload(room, task_id)
    return Submitted(
        task_id=accepted.task_id,
        estimated_completion=accepted.estimated_at,
        upload_offset=UNSET if held_bytes is None else 0,
    )


async def _check_reach(room: PortalRoom, call: Call[Submit]) -> None:
    """Raise RequestError FORBIDDEN for whom and how not everybody may write to."""
    if call.data.groups:
        await room.gate.need(call, TO_GROUPS, "You may not notify groups")
    if call.data.channel is Channel.EMAIL:
        await room.gate.need(call, BY_EMAIL, "You may not send email")


def _notify(data: Submit, user_id: str, sent_ms: int) -> Notify:
    assert data.message is not None, "checked by Submit"
    return Notify(
        sender=user_id,
        message=data.message,
        recipients=tuple(dict.fromkeys(data.recipients)),
        groups=tuple(dict.fromkeys(data.groups)),
        channel=data.channel,
        sent_at=sent_ms,
    )
