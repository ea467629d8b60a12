"""The queue server: named streams with a bound, a lease on what is being worked on, and dead letters.

`server.py` creates, inspects and sweeps queues; `outbox.py` appends and acknowledges what gathered
in a turn of the loop; `subscription.py` reads. A queue has one consumer group; an entry is removed
when it is acknowledged, so its length is its backlog.
"""

from storage.queues.entry import GROUP, Busy, Entry, UnknownQueue
from storage.queues.letters import DeadLetters, Letter
from storage.queues.outbox import Outbox
from storage.queues.server import QueueServer, QueueStatistics
from storage.queues.subscription import Subscription

__all__ = [
    "GROUP",
    "Busy",
    "DeadLetters",
    "Entry",
    "Letter",
    "Outbox",
    "QueueServer",
    "QueueStatistics",
    "Subscription",
    "UnknownQueue",
]
