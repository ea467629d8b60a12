"""How many workers of each kind there should be (docs/operations.md, "Workers come and go"). Pure.

By the load ratio: above 0.8 twice as many, above 0.6 half as many again, below 0.3 seven in ten of them. More
come at once and fewer only after a while, one decision of a kind at a time, within bounds. A decision stands
until it is carried out or `more_after_s` are over: who carries it out need not look at the same moment.

More are rounded up and fewer down. What one step does the next one does not undo: the same work on twice as
many workers, or on half as many, is a ratio between the limits.
"""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

from msgspec.structs import replace

from protocol.messages.monitor import Metrics, ServerSample
from runtime.settings import ScalingSettings
from storage.scaling import Decision
from workers.operations.load import backlog, jobs_of, lanes_of, pressure

URGENT_ABOVE, PREVENTIVE_ABOVE, IDLE_BELOW = 0.8, 0.6, 0.3
URGENT, PREVENTIVE, IDLE = 2, Fraction(3, 2), Fraction(7, 10)

QUEUE_NAMES = {"matching": "game"}
"""The name of a kind's queues, where it is not the kind's own."""

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
        kind: _decide(
            Decision(kind, len(workers), len(workers), load(kind, workers, sample), ""),
            before.get(kind),
            sample.at,
            settings,
        )
        for kind, workers in kinds.items()
    }


def load(kind: str, workers: Iterable[ServerSample], sample: Metrics) -> float:
    """The load ratio: how much of a core its workers use on the mean, or how hard its queues are pressed."""
    used = [worker.cpu_usage / 100 for worker in workers]
    name = QUEUE_NAMES.get(kind, kind)
    pressed = [pressure(queue) for queue in lanes_of(sample, [name])]
    late = [backlog(queue) for queue in jobs_of(sample, name)]
    return round(max(sum(used) / len(used), *pressed, *late, 0.0), 2)


def _decide(found: Decision, before: Decision | None, at_ms: int, settings: ScalingSettings) -> Decision:
    """What to do about the workers of a kind, of which `found` says how many there are, and their load."""
    if before is not None and _stands(before, found.now, at_ms, settings):
        return replace(before, now=found.now, load=found.load)
    target, reason = _target(found.now, found.load, settings)
    way = _sign(target - found.now)
    changed_at = before.changed_at if before else 0
    # As long as it has been the same way without a break.
    was = _sign(_target(before.now, before.load, settings)[0] - before.now) if before else 0
    since_at = before.since_at if before and was == way else at_ms
    decision = replace(found, reason=reason, changed_at=changed_at, since_at=since_at)
    if way == 0:
        return decision
    patience_s = settings.more_after_s if way > 0 else settings.fewer_after_s
    left_s = patience_s - (at_ms - max(changed_at, since_at if way < 0 else 0)) / 1000
    if left_s > 0:
        # Not yet, but it is told what would be done.
        return replace(decision, reason=f"{reason}: {target} of them in {left_s:.0f} s")
    return replace(decision, wanted=target, changed_at=at_ms, reason=f"{reason}: {target}")


def _stands(before: Decision, now: int, at_ms: int, settings: ScalingSettings) -> bool:
    """Whether what was decided is still to be carried out."""
    is_open = before.wanted != before.now and _sign(before.wanted - now) == _sign(before.wanted - before.now)
    return is_open and at_ms - before.changed_at < settings.more_after_s * 1000


def _target(now: int, ratio: float, settings: ScalingSettings) -> tuple[int, str]:
    """How many there should be, and why."""
    if ratio > URGENT_ABOVE:
        target, reason = math.ceil(now * URGENT), f"load {ratio:.0%} is above {URGENT_ABOVE:.0%}"
    elif ratio > PREVENTIVE_ABOVE:
        target, reason = math.ceil(now * PREVENTIVE), f"load {ratio:.0%} is above {PREVENTIVE_ABOVE:.0%}"
    elif ratio < IDLE_BELOW:
        target, reason = math.floor(now * IDLE), f"load {ratio:.0%} is below {IDLE_BELOW:.0%}"
    else:
        target, reason = now, f"load {ratio:.0%} is as it should be"
    if target > settings.most:
        return settings.most, f"{reason}, {settings.most} at most"
    if target < settings.least:
        return settings.least, f"{reason}, {settings.least} at least"
    return target, reason


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
