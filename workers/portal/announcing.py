"""Announcing that urgent work has been handed in, for who may let its player go before others."""

import asyncio

import structlog

from protocol.announcement import PortalTaskSubmitted
from protocol.envelope import trace_of
from protocol.messages.portal import Submit
from protocol.queues import Lane
from storage.events import announce
from storage.queues import Outbox
from workers.requests import Call, sender

log = structlog.get_logger(__name__)


async def announce_urgent(outbox: Outbox, call: Call[Submit], task_id: str, user_id: str) -> None:
    """Announce an accepted task of priority `high`; of others nobody wants to hear.

    It is on the bus before its request is answered, again where that is delivered again. Where the bus takes
    it not, the task is accepted all the same.
    """
    if call.data.priority is not Lane.HIGH:
        return
    fact = PortalTaskSubmitted(
        user_id, task_id, call.data.task_type.value, call.data.priority.value, sender(call)
    )
    outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    trace = trace_of(call.envelope.trace_id)
    announce(outbox, f"portal_task_submitted:{task_id}", trace, fact, outcome.set_result)
    error = await outcome
    if error is not None:
        log.warning("nobody hears of urgent work", task_id=task_id, cause=str(error))
