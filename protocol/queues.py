"""The queues between processes as their users see them: lanes, kinds, and the message that creates one."""

from enum import Enum

import msgspec


class Lane(Enum):
    """A queue's priority. Consumers share their capacity between lanes by weight; none starves."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
