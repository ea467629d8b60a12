"""The queues between processes as their users see them: their lanes and their kinds."""

from enum import Enum


class Lane(Enum):
    """A queue's priority. Consumers share their capacity between lanes by weight; none starves."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


LANE_WEIGHTS: dict[Lane, int] = {Lane.HIGH: 6, Lane.NORMAL: 3, Lane.LOW: 1}
"""How a consumer shares what it reads between lanes that all have a backlog."""


class QueueType(Enum):
    """What a queue carries, and with it whether an entry that nobody read in time matters.

    A reply's or a request's sender has been told `504 TIMEOUT` by then and asks again, so those
    are counted and dropped; a status is followed by a newer one. A job, an event of the bus, or a task,
    that expires is a dead letter. A task's queue has an order of its own (`storage/tasks`).
    """

    SOCKET_MESSAGE = ("socket_message", False)
    REQUEST = ("request", False)
    STATUS = ("server_status", False)
    JOB = ("job", True)
    EVENT = ("event", True)
    TASK = ("task", True)

    def __init__(self, label: str, keeps_expired: bool) -> None:
        self.label = label
        self.keeps_expired = keeps_expired
