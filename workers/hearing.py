"""Hearing what is announced on the event bus, as one kind of consumer among others."""

from collections.abc import Awaitable, Callable

import structlog

from protocol.announcement import Announcement
from protocol.queues import QueueType
from storage import keys
from storage.events import event_bus, read_announcement
from storage.queues import Entry
from workers.consumer import Settle
from workers.process import Intake

log = structlog.get_logger(__name__)

Hear = Callable[[Announcement], Awaitable[None]]
"""Does what follows from an announcement, once however often it comes: it is told again where this raises."""


def bus_intake(group: str, hear: Hear, concurrency: int) -> Intake:
    """The event bus as the consumers of `group` read it, each announcement dealt with by one of them."""

    async def work(entry: Entry, settle: Settle) -> None:
        announcement = read_announcement(entry.message)
        # Of this entry alone, which has a task of its own.
        structlog.contextvars.bind_contextvars(trace_id=announcement.trace_id, announcement=announcement.id)
        log.debug("heard")
        await hear(announcement)
        settle(None)

    return Intake({keys.EVENT_BUS: (event_bus(), 1)}, QueueType.EVENT, work, concurrency, group)
