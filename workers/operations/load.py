"""How hard a queue is pressed, as a number from 0 (calm) on; 1 is as much as it should bear. Pure."""

from collections.abc import Iterable

from protocol.messages.monitor import Metrics, QueueSample
from protocol.queues import Lane

FULL_SHARE = 0.5
"""A queue that is filled to this share is pressed as hard as it should be."""

LATE_S = 10.0
"""So is one whose oldest entry waits for so long: after as long its sender has been told TIMEOUT."""

BEHIND_THE_DOOR = ("game", "ranking", "portal")
"""What players do once they are in, by the names of its request queues."""


def pressure(queue: QueueSample) -> float:
    """How hard a queue is pressed: by its length or by the age of its oldest entry, whichever is worse."""
    return max(queue.length / (FULL_SHARE * max(queue.max_size, 1)), queue.oldest_age_sec / LATE_S)


def lanes_of(sample: Metrics, names: Iterable[str]) -> list[QueueSample]:
    """The request queues of these names, in all lanes."""
    wanted = {f"{name}_queue:{lane.value}" for name in names for lane in Lane}
    return [queue for queue in sample.queues if queue.queue_id in wanted]


def jobs_of(sample: Metrics, name: str) -> list[QueueSample]:
    """The queues of accepted work, which are those of this name that hold no requests."""
    lanes = {f"{name}_queue:{lane.value}" for lane in Lane}
    return [
        queue
        for queue in sample.queues
        if queue.queue_id.startswith(f"{name}_queue:") and queue.queue_id not in lanes
    ]


def backlog(queue: QueueSample) -> float:
    """How far behind accepted work is, from 0 to 1: the share of it that waits for its turn.

    A share above 0.8 is four rounds of what is under way. It counts for less while the oldest entry is young,
    since a burst is soon over; and not at all where nothing is under way, since what waits then waits for its
    next try, and more workers would not help it.
    """
    if not queue.pending or not queue.length:
        return 0.0
    return min((queue.length - queue.pending) / queue.length, queue.oldest_age_sec / LATE_S)


def behind_the_door(sample: Metrics) -> tuple[float, str]:
    """The worst pressure on what lies behind the door, and where: request queues, and nodes' own queues."""
    nodes = [queue for queue in sample.queues if queue.queue_id.endswith("_Q")]
    pressed = [(pressure(queue), queue.queue_id) for queue in lanes_of(sample, BEHIND_THE_DOOR) + nodes]
    return max(pressed, default=(0.0, ""))
