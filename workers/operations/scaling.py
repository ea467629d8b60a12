"""How many workers of each kind there should be (section 6.3 of the seed). Pure.

By the load ratio: above 0.8 twice as many, above 0.6 half as many again, below 0.3 seven in ten of them. More
come at once and fewer only after a while, one decision of a kind at a time, within bounds.
"""

import math
from collections.abc import Iterable, Mapping

import msgspec

from protocol.messages.monitor import Metrics, ServerSample
from runtime.settings import ScalingSettings
from storage.scaling import Decision
from workers.operations.load import lanes_of, pressure

URGENT_ABOVE, PREVENTIVE_ABOVE, IDLE_BELOW = 0.8, 0.6, 0.3
URGENT, PREVENTIVE, IDLE = 2.0, 1.5, 0.7

QUEUE_NAMES = {"matching": "game"}
"""The name of a kind's request queues, where it is not the kind's own."""

ALONE = frozenset({"status", "operations"})
"""Kinds of which one works at a time: more of them would do nothing more."""


def decide(sample: Metrics, before: Mapping[str, Decision], settings: ScalingSettings) -> dict[str, Decision]:
    """What to do about each kind of worker that runs."""
    kinds: dict[str, list[ServerSample]] = {}
    for server in sample.servers:
        kind = server.server_id.rpartition("-")[0]
        if server.status_code == "READY" and server.server_type == kind.upper() and kind not in ALONE:
            kinds.setdefault(kind, []).append(server)
    return {
        kind: _decide(kind, workers, sample, before.get(kind), settings) for kind, workers in kinds.items()
    }


def load(kind: str, workers: Iterable[ServerSample], sample: Metrics) -> float:
    """The load ratio: how much of a core its workers use on the mean, or how hard its queues are pressed."""
    used = [worker.cpu_usage / 100 for worker in workers]
    pressed = [pressure(queue) for queue in lanes_of(sample, [QUEUE_NAMES.get(kind, kind)])]
    return round(max(sum(used) / len(used), *pressed, 0.0), 2)


def _decide(
    kind: str,
    workers: list[ServerSample],
    sample: Metrics,
    before: Decision | None,
    settings: ScalingSettings,
) -> Decision:
    now, ratio = len(workers), load(kind, workers, sample)
    target, reason = _target(now, ratio)
    target = min(max(target, settings.least), settings.most)
    changed_at = before.changed_at if before else 0
    is_same_way = before is not None and (target > now) - (target < now) == _way(before)
    since_at = before.since_at if before and is_same_way else sample.at
    decision = Decision(kind, now, now, ratio, reason, changed_at, since_at)
    if target == now:
        return msgspec.structs.replace(decision, wanted=now)
    patience_s = settings.more_after_s if target > now else settings.fewer_after_s
    left_s = patience_s - (sample.at - max(changed_at, since_at if target < now else 0)) / 1000
    if left_s > 0:
        # Not yet, but it is told what would be done.
        return msgspec.structs.replace(decision, reason=f"{reason}: {target} of them in {left_s:.0f} s")
    return msgspec.structs.replace(
        decision, wanted=target, changed_at=sample.at, reason=f"{reason}: {target}"
    )


def _way(before: Decision) -> int:
    target, _ = _target(before.now, before.load)
    return (target > before.now) - (target < before.now)


def _target(now: int, ratio: float) -> tuple[int, str]:
    """How many there should be by the load alone, and why."""
    if ratio > URGENT_ABOVE:
        return math.ceil(now * URGENT), f"load {ratio:.0%} is above {URGENT_ABOVE:.0%}"
    if ratio > PREVENTIVE_ABOVE:
        return math.ceil(now * PREVENTIVE), f"load {ratio:.0%} is above {PREVENTIVE_ABOVE:.0%}"
    if ratio < IDLE_BELOW:
        return max(1, math.floor(now * IDLE)), f"load {ratio:.0%} is below {IDLE_BELOW:.0%}"
    return now, f"load {ratio:.0%} is as it should be"
