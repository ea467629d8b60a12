"""`portal.status`, `notification.list` and `notification.read`: asking how things are."""

from typing import Any

import msgspec
from msgspec import UNSET

from protocol.errors import TASK_NOT_FOUND, RequestError
from protocol.messages.portal import (
    ListNotifications,
    NotificationList,
    NotificationsRead,
    NotificationView,
    ReadNotifications,
    Status,
    TaskView,
)
from storage.tasks import TaskState, TaskStatus
from workers.portal.room import PortalRoom, handlers
from workers.requests import Call, sender


async def state_for(room: PortalRoom, call: Call[Any], task_id: str) -> TaskState:
    """The state of a task that the sender may see. Raises RequestError TASK_NOT_FOUND."""
    state = await room.tasks.get(task_id) or await room.archive.get(task_id)
    if state is None or not await room.gate.may_act_for(call, state.user_id):
        raise RequestError(TASK_NOT_FOUND)
    return state


@handlers.handles(Status)
async def status(room: PortalRoom, call: Call[Status]) -> TaskView:
    """See how a task is, from Redis or else from the database."""
    state = await state_for(room, call, call.data.task_id)
    return TaskView(
        task_id=state.task_id,
        task_type=state.task_type,
        status=state.status.value,
        progress=state.progress,
        created_at=state.created_at,
        result=UNSET if state.result is None else msgspec.json.decode(state.result),
        error=UNSET if state.error is None or not state.status.is_over else state.error,
        upload_offset=UNSET if state.upload_offset is None else state.upload_offset,
        download_url=await _download_url(room, state) or UNSET,
    )


async def _download_url(room: PortalRoom, state: TaskState) -> str | None:
    """Where the file that came of a task can be fetched; None for no file, or none that has a URL."""
    if state.status is not TaskStatus.COMPLETED or not room.objects.has_links:
        return None
    file = await room.files.get(state.task_id)
    return None if file is None or file.stored_at is None else await room.objects.link(file.object_name)


@handlers.handles(ListNotifications)
async def list_notifications(room: PortalRoom, call: Call[ListNotifications]) -> NotificationList:
    """See the newest notifications."""
    user_id = sender(call)
    found = await room.notifications.newest(user_id, call.data.limit)
    views = [
        NotificationView(
            id=each.task_id,
            message=each.message,
            from_=each.sender,
            sent_at=each.sent_at,
            read=each.read_at is not None,
        )
        for each in found
    ]
    return NotificationList(notifications=views, unread=await room.notifications.unread(user_id))


@handlers.handles(ReadNotifications)
async def read_notifications(room: PortalRoom, call: Call[ReadNotifications]) -> NotificationsRead:
    """Note that notifications have been read; to say so again changes nothing."""
    user_id = sender(call)
    await room.notifications.read(user_id, call.data.ids)
    return NotificationsRead(unread=await room.notifications.unread(user_id))
