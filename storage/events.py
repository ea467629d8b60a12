"""The event bus: one queue that every kind of consumer reads as a group of its own.

An entry is removed when every group has dealt with it. A group begins with the first run of its consumer
and stays: what is announced while the consumer is away waits for it. Where nobody has ever listened,
nothing is kept.
"""

import msgspec
from redis.asyncio import Redis

from protocol.announcement import Announcement, Fact
from protocol.codec import encode
from protocol.envelope import QueueCreate, queue_create
from protocol.queues import QueueType
from storage import keys
from storage.queues import Outbox, QueueServer
from storage.queues.outbox import Done

MAX_SIZE = 1_000_000
EXPIRE_S = 86_400.0
"""An announcement that a consumer has not read for a day becomes a dead letter."""

_decoder = msgspec.msgpack.Decoder(Announcement)


def event_bus() -> QueueCreate:
    """The message that creates the bus; whoever comes first creates it."""
    return queue_create("event_bus", keys.EVENT_BUS, QueueType.EVENT, max_size=MAX_SIZE, expire_s=EXPIRE_S)


async def open_bus(redis: Redis) -> None:
    """Create the bus for a process that only announces. Raises StoreAway."""
    await QueueServer(redis).create(event_bus(), group="")


def announce(
    outbox: Outbox, announcement_id: str, trace_id: str, fact: Fact, done: Done | None = None
) -> None:
    """Put a fact on the bus. `done` is called with None when Redis has it, else with the reason."""
    outbox.publish(keys.EVENT_BUS, encode(Announcement(announcement_id, trace_id, fact)), done)


def read_announcement(message: bytes) -> Announcement:
    """What an entry of the bus holds. Raises msgspec.DecodeError."""
    return _decoder.decode(message)
