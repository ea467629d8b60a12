"""Which queues consumers should take more from: the harder one is pressed, the more (section 6.2). Pure."""

from collections.abc import Mapping

import msgspec

from protocol.messages.monitor import Metrics, QueueSample
from protocol.queues import Lane
from workers.operations.load import pressure

LEAST, MOST = 0.5, 2.0
SMOOTHING = 0.5
"""The share of the way to what the load asks for that a priority goes at a time."""

BUSY_CPU_PERCENT = 80.0
"""From this use of a core on (the mean of the processes), what is not urgent waits."""

CALM = "calm"


class Priority(msgspec.Struct, frozen=True):
    """How much more than its ordinary share a queue gets, and why."""

    weight: float
    reason: str


def priorities(sample: Metrics, before: Mapping[str, float]) -> dict[str, Priority]:
    """The priority of every lane of requests and, by its name, of each kind of worker: its lanes' highest.

    `before` are the weights so far; one that is not in it was 1.
    """
    lanes = [queue for queue in sample.queues if _lane(queue) is not None]
    busy = _is_busy(sample)
    found = {queue.queue_id: _priority(queue, busy, before.get(queue.queue_id, 1.0)) for queue in lanes}
    for queue in lanes:
        kind = queue.queue_id.partition("_queue:")[0]
        lane = found[queue.queue_id]
        if kind not in found or found[kind].weight < lane.weight:
            found[kind] = lane
    return found


def _priority(queue: QueueSample, busy: bool, before: float) -> Priority:
    wanted, reason = 1.0 + pressure(queue), _reason(queue)
    if busy and _lane(queue) is Lane.LOW:
        wanted, reason = wanted - 0.5, f"{reason}; what is not urgent waits while the processors are busy"
    wanted = min(max(wanted, LEAST), MOST)
    weight = round(before + SMOOTHING * (wanted - before), 4)
    return Priority(weight, reason)


def _reason(queue: QueueSample) -> str:
    if pressure(queue) < 0.1:
        return CALM
    return f"{queue.length:,} entries, the oldest waits for {queue.oldest_age_sec:.1f} s"


def _is_busy(sample: Metrics) -> bool:
    used = [server.cpu_usage for server in sample.servers if server.status_code == "READY"]
    return bool(used) and sum(used) / len(used) >= BUSY_CPU_PERCENT


def _lane(queue: QueueSample) -> Lane | None:
    _, is_lane, name = queue.queue_id.partition("_queue:")
    return next((lane for lane in Lane if is_lane and lane.value == name), None)
