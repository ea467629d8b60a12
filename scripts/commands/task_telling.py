"""Telling users what an operator does with their tasks."""

from protocol.messages.portal import TaskUpdate
from scripts.commands.system import sending
from storage.tasks import TaskStatus
from storage.whereabouts import Whereabouts
from storage.wire import Wire
from workers.telling import Telling


async def tell(wire: Wire, user_id: str, task_id: str, status: TaskStatus) -> None:
    """Tell a task's user that it is of this status now.

    That it is pending again is told before it is so: a worker may take it at once, and tells what follows.
    """
    event = TaskUpdate(task_id=task_id, status=status.value, progress=0)
    async with sending(wire) as outbox:
        await Telling(Whereabouts(wire), outbox).tell_all([(user_id, event)])
        await outbox.flushed()
