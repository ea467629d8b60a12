"""What operators' programs hear: samples of the whole system, and alerts (docs/operations.md)."""

from enum import StrEnum

import msgspec

from protocol.errors import FORBIDDEN
from protocol.messages.declaration import Message, Nothing, event, request


class AlertState(StrEnum):
    """What became of an alert."""

    OPEN = "OPEN"
    ESCALATED = "ESCALATED"
    CLOSED = "CLOSED"


class AlertLevel(StrEnum):
    """How bad it is."""

    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@request("monitor.subscribe", owner="operations", reply=Nothing, gated=True, errors=(FORBIDDEN,))
class MonitorSubscribe(Message, frozen=True):
    """Hear METRICS every few seconds and each ALERT, from now on; those that are open come at once."""


class ServerSample(Message, frozen=True):
    """A process as its last report has it: counts since the report before, CPU in % of one core.

    `memoryUsage` is in % of the memory of its machine, `host`.
    """

    server_id: str
    server_type: str
    status_code: str
    cpu_usage: float
    memory_usage: float
    network_status: str
    connections: int
    requests: int
    errors: int
    latency_p99_ms: float
    heartbeat_age_sec: float
    host: str = ""


class QueueSample(Message, frozen=True):
    """A queue as it is: its backlog, what is being worked on, and the age of the oldest entry."""

    queue_id: str
    length: int
    pending: int
    max_size: int
    oldest_age_sec: float
    dead_letters: int


class AdmissionSample(Message, frozen=True):
    """The waiting room as it is; `rate_per_minute` is what is set.

    `estimate_error_sec` is by how much players have lately been let in earlier or later than they were first
    told, on the mean.
    """

    waiting: int
    ready: int
    rate_per_minute: float
    average_wait_sec: float
    estimate_error_sec: float = 0.0


@event("METRICS")
class Metrics(Message, frozen=True):
    """A sample of the whole system."""

    at: int
    servers: list[ServerSample]
    queues: list[QueueSample]
    admission: AdmissionSample
    redis_memory_bytes: int


@event("ALERT")
class Alert(Message, frozen=True):
    """Something passed its limit (OPEN), lasts or got worse (ESCALATED), or is well again (CLOSED).

    `id` is the same through all of an alert's states; `subject` is what it is about, such as
    `server:SOCK001` or `queue:login_queue:high`. `value` and `limit` are of the same kind.
    """

    id: str
    subject: str
    state: AlertState
    level: AlertLevel
    message: str
    value: float
    limit: float
    opened_at: int
    at: int = 0

    def changed(self, state: AlertState, at: int) -> "Alert":
        """The same alert in another state."""
        return msgspec.structs.replace(self, state=state, at=at)
