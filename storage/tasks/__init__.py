"""The noun "task": slow work that somebody has asked for, from its acceptance to its result.

Every change is one Function in `functions/tasks.lua` and `functions/archive.lua`, called for all the tasks
that have gathered: a round trip to Redis for each task would be most of what a short one costs.
`portal_queue:{taskType}` holds the accepted tasks, and who works on one holds it there as a consumer holds
any entry.

`acceptance.py` is for who asks for tasks, `work.py` for who does them, `archive.py` keeps them in the
database.
"""

from storage.tasks.acceptance import Tasks
from storage.tasks.archive import TaskArchive
from storage.tasks.task import (
    Accepted,
    Ended,
    Harvest,
    LostTask,
    NewTask,
    Taken,
    TaskNotFound,
    TaskOver,
    TaskQueueFull,
    TaskState,
    TaskStatus,
    TooManyTasks,
    WrongOffset,
)
from storage.tasks.work import TaskWork

__all__ = [
    "Accepted",
    "Ended",
    "Harvest",
    "LostTask",
    "NewTask",
    "Taken",
    "TaskArchive",
    "TaskNotFound",
    "TaskOver",
    "TaskQueueFull",
    "TaskState",
    "TaskStatus",
    "TaskWork",
    "Tasks",
    "TooManyTasks",
    "WrongOffset",
]
