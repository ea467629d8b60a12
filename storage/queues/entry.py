"""An entry of a queue, and what can be refused about one."""

import msgspec

GROUP = "lobbyd"
"""The consumer group of every queue that has one kind of reader."""


class Entry(msgspec.Struct, frozen=True):
    """A message as `group` read it. `deliveries` counts how often it was handed out, this time included."""

    queue_id: str
    id: bytes
    message: bytes
    deliveries: int = 1
    group: str = GROUP


class Busy(Exception):
    """The queue is full: nothing was appended, try again later."""


class UnknownQueue(Exception):
    """Nobody has created this queue, or its owner is gone: nothing was appended."""


def refusal(queue_id: str, taken: int) -> Exception:
    """What `queue_publish` means by answering `taken` for a message that it did not take."""
    return UnknownQueue(f"There is no queue {queue_id}.") if taken < 0 else Busy(f"Queue {queue_id} is full.")
