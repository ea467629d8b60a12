"""Which queues consumers should take more from: the harder one is pressed, the more. Pure.

docs/operations.md, "Priorities", has the rule.
"""

from collections.abc import Mapping

import msgspec

from protocol.messages.monitor import Metrics, QueueSample
from protocol.queues import Lane
from runtime.settings import MonitoringSettings
from storage import keys
from workers.operations.load import pressure

LEAST, MOST = 0.5, 2.0
SMOOTHING = 0.5
"""The share of the way to what the load asks for that a priority goes at a time."""

BUSY_CPU_PERCENT = 80.0
"""From this use of a core on (the mean of the processes), what is not urgent waits."""

SHORT_MEMORY_PERCENT = 80.0
"""So it does from this share of a machine's memory on, or of what Redis may use."""

SHARED = frozenset({keys.EVENT_BUS, keys.SUBMITTED_SCORES})
"""What workers share their capacity with beside lanes of requests. Tasks have limits of their own a kind."""

CALM = "calm"


class Priority(msgspec.Struct, frozen=True):
    """How much more than its ordinary share a queue gets, and why."""

    weight: float
    reason: str


def priorities(
    sample: Metrics, before: Mapping[str, float], settings: MonitoringSettings
) -> dict[str, Priority]:
    """The priority of every queue that is shared, and by its name of each kind of worker: its lanes' highest.

    `before` are the weights so far; one that is not in it was 1.
    """
    strain = _strain(sample, settings)
    found = {
        queue.queue_id: _priority(queue, strain, before.get(queue.queue_id, 1.0))
        for queue in sample.queues
        if _lane(queue) is not None or queue.queue_id in SHARED
    }
    for queue in sample.queues:
        if _lane(queue) is None:
            continue
        kind = queue.queue_id.partition("_queue:")[0]
        lane = found[queue.queue_id]
        if kind not in found or found[kind].weight < lane.weight:
            found[kind] = lane
    return found


def _priority(queue: QueueSample, strain: str, before: float) -> Priority:
    wanted, reason = 1.0 + pressure(queue), _reason(queue)
    if strain and _lane(queue) is Lane.LOW:
        wanted, reason = wanted - 0.5, f"{reason}; what is not urgent waits while {strain}"
    wanted = min(max(wanted, LEAST), MOST)
    weight = round(before + SMOOTHING * (wanted - before), 4)
    return Priority(weight, reason)


def _reason(queue: QueueSample) -> str:
    if pressure(queue) < 0.1:
        return CALM
    return f"{queue.length:,} entries, the oldest waits for {queue.oldest_age_sec:.1f} s"


def _strain(sample: Metrics, settings: MonitoringSettings) -> str:
    """What there is too little of, in words; "" where there is enough."""
    ready = [server for server in sample.servers if server.status_code == "READY"]
    if ready and sum(server.cpu_usage for server in ready) / len(ready) >= BUSY_CPU_PERCENT:
        return "the processors are busy"
    machines: dict[str, float] = {}
    for server in ready:
        machines[server.host] = machines.get(server.host, 0.0) + server.memory_usage
    if max(machines.values(), default=0.0) >= SHORT_MEMORY_PERCENT:
        return "a machine is short of memory"
    most_bytes = settings.redis_memory_bytes * SHORT_MEMORY_PERCENT / 100
    return "Redis is short of memory" if 0 < most_bytes <= sample.redis_memory_bytes else ""


def _lane(queue: QueueSample) -> Lane | None:
    _, is_lane, name = queue.queue_id.partition("_queue:")
    return next((lane for lane in Lane if is_lane and lane.value == name), None)
