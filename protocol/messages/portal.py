"""Slow work and notifications (docs/operations.md, "Tasks")."""

from enum import Enum
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from protocol.errors import (
    ALREADY_FINISHED,
    FORBIDDEN,
    QUOTA_EXCEEDED,
    TASK_NOT_FOUND,
    TOO_MANY_TASKS,
    WRONG_OFFSET,
)
from protocol.messages.declaration import Message, Nothing, event, request
from protocol.messages.processing import Operation, Source, TaskId
from protocol.queues import Lane

MAX_INLINE_BYTES = 524_288
"""A longer file comes in chunks (`portal.upload`)."""

MAX_RECIPIENTS = 1000
"""Of one notification; more are a group."""

_NOT_IN_NAMES = (
    r"/\\\x00-\x1f\x7f-\x9f"
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\uffff"
)
"""Marks of direction and what is no character, besides what is special in paths."""


FileName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=rf"^(?!\.{{1,2}}\Z)(?!\s)[^{_NOT_IN_NAMES}]*(?<!\s)\Z",
        description="a file's name without a folder: 1 to 255 characters, no / \\ or control characters, "
        "none that change the direction of writing, no space at either end, not . or ..",
    ),
]
UserId = Annotated[str, Meta(min_length=1, max_length=32)]
OwnerId = Annotated[
    str,
    Meta(pattern=r"^[a-z0-9_.-]{3,32}\Z", description="a user's id: 3 to 32 of a-z, 0-9, _ . and -"),
]
GroupId = Annotated[str, Meta(min_length=1, max_length=64)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="a SHA-256 as 64 lower case hex digits")]


class TaskType(Enum):
    """The kinds of tasks."""

    FILE_UPLOAD = "file_upload"
    DATA_PROCESSING = "data_processing"
    NOTIFICATION = "notification"


class Channel(Enum):
    """How a notification reaches people."""

    INGAME = "ingame"
    EMAIL = "email"


class Submitted(Message, frozen=True):
    """The task is accepted. `estimatedCompletion` is in ms since the epoch, from how long the last ones took.

    `uploadOffset` is where the first chunk of a file belongs; without it nothing is left to be sent.
    """

    task_id: str
    estimated_completion: int
    upload_offset: int | UnsetType = UNSET


@request(
    "portal.submit",
    owner="portal",
    reply=Submitted,
    status=202,
    errors=(FORBIDDEN, TOO_MANY_TASKS, QUOTA_EXCEEDED),
)
class Submit(Message, frozen=True):
    """Ask for slow work; its progress comes as `TASK_UPDATE`.

    `file_upload` needs `fileName` and `size`, and the file: `fileData` up to 512 KiB, else `portal.upload`.
    `data_processing` needs `source` and `operation`. `notification` needs `message`, and `recipients`,
    `groups` or both; groups and `email` are for whom a policy lets write so.
    """

    task_type: TaskType
    user_id: OwnerId | None = None
    priority: Lane = Lane.NORMAL
    file_name: FileName | None = None
    size: Annotated[int, Meta(ge=0)] | None = None
    sha256: Sha256 | None = None
    file_data: Annotated[bytes, Meta(max_length=MAX_INLINE_BYTES)] | None = None
    source: Source | None = None
    operation: Operation | None = None
    message: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    recipients: Annotated[tuple[UserId, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    groups: Annotated[tuple[GroupId, ...], Meta(max_length=16)] = ()
    channel: Channel = Channel.INGAME

    def __post_init__(self) -> None:
        for name, value in _NEEDED[self.task_type](self).items():
            if value is None:
                raise ValueError(f"Object missing required field `{name}` for {self.task_type.value}")
        if self.file_data is not None and len(self.file_data) != self.size:
            raise ValueError(f"`size` is {self.size}, and `fileData` has {len(self.file_data)} bytes")
        if self.task_type is TaskType.NOTIFICATION and not self.recipients and not self.groups:
            raise ValueError("Object missing required field `recipients` (or `groups`)")


_NEEDED = {
    TaskType.FILE_UPLOAD: lambda data: {"fileName": data.file_name, "size": data.size},
    TaskType.DATA_PROCESSING: lambda data: {"source": data.source, "operation": data.operation},
    TaskType.NOTIFICATION: lambda data: {"message": data.message},
}


class Uploaded(Message, frozen=True):
    """Where the next chunk belongs, and whether that was the last one."""

    upload_offset: int
    complete: bool


class NextOffset(Message, frozen=True):
    """Where the next chunk belongs."""

    upload_offset: int


@request(
    "portal.upload",
    owner="portal",
    reply=Uploaded,
    lane=Lane.LOW,
    errors=(WRONG_OFFSET, TASK_NOT_FOUND, ALREADY_FINISHED),
)
class Upload(Message, frozen=True):
    """Send the bytes of a file from `offset` on, in as many chunks as it takes, in order.

    A frame may have 1 MiB, so a chunk of 1,000,000 bytes fits. Several may be under way at a time: one that
    comes before its turn, up to 4 MiB ahead, waits for it for a second. After a lost connection
    `WRONG_OFFSET` or `portal.status` say where to go on.
    """

    task_id: TaskId
    offset: Annotated[int, Meta(ge=0)]
    chunk: Annotated[bytes, Meta(min_length=1)]


class TaskView(Message, frozen=True):
    """A task's state: pending, processing, completed, failed or cancelled; `progress` is 0 to 100.

    `downloadUrl` is where the file that came of it can be fetched by HTTP for the next hour. It is there when
    files lie in an object store; else whoever serves the folder knows the address of the result's `path`.
    """

    task_id: str
    task_type: str
    status: str
    progress: int
    created_at: int
    result: Any = UNSET
    error: str | UnsetType = UNSET
    upload_offset: int | UnsetType = UNSET
    download_url: str | UnsetType = UNSET


@request("portal.status", owner="portal", reply=TaskView, errors=(TASK_NOT_FOUND,))
class Status(Message, frozen=True):
    """See how a task is."""

    task_id: TaskId


@request("portal.cancel", owner="portal", reply=Nothing, errors=(TASK_NOT_FOUND, ALREADY_FINISHED))
class CancelTask(Message, frozen=True):
    """Give a task up that is not over."""

    task_id: TaskId


class NotificationView(Message, frozen=True):
    """A notification: its `id`, the user that sent it, and when, in ms since the epoch."""

    id: str
    message: str
    from_: str
    sent_at: int
    read: bool


class NotificationList(Message, frozen=True):
    """The newest notifications, and how many are unread in all."""

    notifications: list[NotificationView]
    unread: int


@request("notification.list", owner="portal", reply=NotificationList)
class ListNotifications(Message, frozen=True):
    """See the newest notifications, the newest first."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 50


class NotificationsRead(Message, frozen=True):
    """How many are unread still."""

    unread: int


@request("notification.read", owner="portal", reply=NotificationsRead)
class ReadNotifications(Message, frozen=True):
    """Note that notifications have been read."""

    ids: Annotated[list[TaskId], Meta(min_length=1, max_length=100)]


@event("TASK_UPDATE")
class TaskUpdate(Message, frozen=True):
    """A task of yours has changed: its status, or how far it is (at most five times a second)."""

    task_id: str
    status: str
    progress: int
    result: Any = UNSET
    error: str | UnsetType = UNSET


@event("NOTIFICATION")
class Notification(Message, frozen=True):
    """Somebody tells you something. It is kept until `notification.read` names its `id`."""

    id: str
    message: str
    from_: str
    sent_at: int
