"""A task: what is asked for, what a worker holds, what can be asked about it, and what can be refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from protocol.queues import LANE_WEIGHTS, Lane
from storage.functions import Library
from storage.tickets import Record

LIBRARY = Library("tasks", "archive")

MOST_PER_CALL = 250
"""Tasks that one Function call is about: it keeps Redis for 3 ms then."""


class TaskStatus(StrEnum):
    """Where a task is in its life."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it unless an operator asks for it."""
        return self not in {TaskStatus.PENDING, TaskStatus.PROCESSING}


class TooManyTasks(Exception):
    """The user has as many open tasks as anybody may have: nothing was accepted."""


class TaskQueueFull(Exception):
    """So many tasks of the kind wait that no more are taken: nothing was accepted."""


class TaskNotFound(Exception):
    """There is no such task, or it is another user's, or too long over."""


class TaskOver(Exception):
    """The task has ended: there is nothing left to cancel or to bring."""


class WrongOffset(Exception):
    """The bytes do not follow those that are there. Holds the offset at which the next ones belong."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"The next bytes belong at offset {offset}.")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be accepted. `message` is its input, encoded.

    `record` makes a repeat of the request that asks for it answer the first one's task. `held_bytes` is how
    many bytes must come (`Tasks.advance`) before it is worked on, None for a task that needs none.
    """

    task_id: str
    user_id: str
    lane: Lane
    message: bytes
    record: Record | None = None
    held_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LostTask:
    """A task that was accepted at `created_at` (ms since the epoch), and that Redis may have lost.

    `upload` is how many bytes it has and how many have come, None where it needs no more.
    """

    task: NewTask
    created_at: int
    upload: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted task. Times are ms since the epoch; `estimated_at` is when it should be completed."""

    task_id: str
    created_at: int
    estimated_at: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A task that this consumer holds. `deliveries` counts how often it was handed out, now included."""

    entry: bytes
    task_id: str
    user_id: str
    message: bytes
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a take brought. `pause_ms` is when a task's pause is over, or -1; `newest` the newest entry."""

    tasks: list[Taken]
    pause_ms: int
    newest: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """A task's end. `result` is JSON where it completed, `error` in words where it failed."""

    task: Taken
    status: TaskStatus
    result: bytes = b""
    error: str = ""
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task as it can be asked for. `result` is JSON.

    While bytes are awaited, `upload_offset` is where the next ones belong, `upload_bytes` how many there
    will be.
    """

    task_id: str
    user_id: str
    task_type: str
    status: TaskStatus
    progress: int
    created_at: int
    priority: str = Lane.NORMAL.value
    result: bytes | None = None
    error: str | None = None
    attempts: int = 0
    finished_at: int | None = None
    letter: str | None = None
    upload_offset: int | None = None
    upload_bytes: int | None = None


def cost(lane: Lane) -> float:
    """By how much a task puts its user's next one in the lane off."""
    return 1 / LANE_WEIGHTS[lane]


def accepted(answer: Any) -> Accepted | Exception:
    if answer[0] == b"many":
        return TooManyTasks()
    if answer[0] == b"full":
        return TaskQueueFull()
    task_id, created_at, estimated_at = answer
    return Accepted(task_id.decode(), created_at, estimated_at)


def taken(entry: bytes, fields: Sequence[bytes], deliveries: int = 1) -> Taken:
    return Taken(entry, fields[3].decode(), fields[5].decode(), fields[1], deliveries)


def state_of(task_id: str, row: Any) -> TaskState | None:
    pairs = row.items() if isinstance(row, Mapping) else zip(row[::2], row[1::2], strict=True)
    fields = {name.decode(): value for name, value in pairs}
    if "status" not in fields:
        return None

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    def text(name: str) -> str | None:
        return fields[name].decode() if name in fields else None

    return TaskState(
        task_id=task_id,
        user_id=fields["user_id"].decode(),
        task_type=fields["task_type"].decode(),
        status=TaskStatus(fields["status"].decode()),
        progress=int(fields["progress"]),
        created_at=int(fields["created_at"]),
        priority=fields["priority"].decode(),
        result=fields.get("result"),
        error=text("error"),
        attempts=number("attempts") or 0,
        finished_at=number("finished_at"),
        letter=text("letter"),
        upload_offset=number("offset") if "held" in fields else None,
        upload_bytes=number("size") if "held" in fields else None,
    )
