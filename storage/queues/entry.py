"""An entry of a queue, and what can be refused about one."""

from dataclasses import dataclass

GROUP = "lobbyd"
"""The consumer group of every queue that has one kind of reader."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it was read. `deliveries` counts how often it was handed out, this time included."""

    queue_id: str
    id: bytes
    message: bytes
    deliveries: int = 1


class Busy(Exception):
    """The queue is full: nothing was appended, try again later."""


class UnknownQueue(Exception):
    """Nobody has created this queue, or its owner is gone: nothing was appended."""
