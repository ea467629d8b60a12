"""What `lobbyctl top` shows: gathered from Redis, and turned into rows of text. Changes nothing."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from redis.asyncio import Redis

from protocol.messages.monitor import Alert, AlertState, Metrics
from protocol.queues import Lane
from scripts.commands.admission_look import in_words
from storage import keys
from storage.admission import AdmissionSettings, Settings
from storage.matches import Bucket, MatchBoard
from storage.monitoring import Monitoring
from workers.operations.alerts import OpenAlert

BARS = "▁▂▃▄▅▆▇█"
SPARK_LENGTH = 30
"""Samples in a sparkline: two and a half minutes of those every 5 s."""

_alert = msgspec.json.Decoder(OpenAlert)
_LANES = {lane.value for lane in Lane}

Row = tuple[str, ...]


@dataclass(frozen=True)
class View:
    """The system at one moment, and the samples of the last minutes, oldest first."""

    now: Metrics
    past: Sequence[Metrics]
    settings: Settings
    matching: Sequence[Bucket]
    alerts: Sequence[Alert]


async def gather(redis: Redis) -> View:
    """Look at everything once. Raises StoreAway."""
    monitoring = Monitoring(redis)
    return View(
        await monitoring.sample(),
        await monitoring.history(SPARK_LENGTH),
        await AdmissionSettings(redis).show(),
        await MatchBoard(redis).buckets(),
        await open_alerts(monitoring),
    )


async def open_alerts(monitoring: Monitoring) -> list[Alert]:
    """The alerts that are open, the oldest first. Raises StoreAway."""
    kept = [_alert.decode(each).alert for each in (await monitoring.alerts()).values()]
    alerts = [alert for alert in kept if alert.state is not AlertState.CLOSED]
    return sorted(alerts, key=lambda alert: alert.opened_at)


def sparkline(values: Iterable[float], most: float = 0.0) -> str:
    """A bar for each value, up to the largest of them or `most`."""
    series = list(values)
    top = max([most, *series])
    if not top:
        return BARS[0] * len(series)
    return "".join(BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] for value in series)


def server_rows(view: View) -> dict[str, Row]:
    """A row for each process: name, state, cpu and its past, memory, connections, requests, beat."""
    past = {server.server_id: [] for server in view.now.servers}  # type: dict[str, list[float]]
    for sample in view.past:
        for server in sample.servers:
            past.setdefault(server.server_id, []).append(server.cpu_usage)
    return {
        each.server_id: (
            each.server_id,
            each.status_code,
            f"{each.cpu_usage:.0f}",
            sparkline(past[each.server_id], 100.0),
            f"{each.memory_usage:.1f}",
            f"{each.connections:,}",
            f"{each.latency_p99_ms:.0f}",
            f"{each.heartbeat_age_sec:.0f} s",
        )
        for each in view.now.servers
    }


def queue_rows(view: View) -> dict[str, Row]:
    """A row for each queue: name, length and its past, pending, oldest, dead letters."""
    past = {queue.queue_id: [] for queue in view.now.queues}  # type: dict[str, list[float]]
    for sample in view.past:
        for queue in sample.queues:
            past.setdefault(queue.queue_id, []).append(queue.length)
    return {
        each.queue_id: (
            each.queue_id,
            f"{each.length:,}",
            sparkline(past[each.queue_id]),
            f"{each.pending:,}",
            f"{each.oldest_age_sec:.0f} s" if each.length else "–",
            f"{each.dead_letters:,}" if each.dead_letters else "–",
        )
        for each in view.now.queues
    }


def admission_text(view: View) -> str:
    """Who waits, how fast they are let in, and how that was lately."""
    now, settings = view.now.admission, view.settings
    state = f"PAUSED by {settings.set_by}" if settings.paused else f"{settings.total_rate:,.0f} a minute"
    waits = [*(sample.admission.waiting for sample in view.past), now.waiting]
    return (
        f"{state}\n{now.waiting:,} wait  {sparkline(waits)}\n"
        f"{now.ready:,} are READY; the latest waited {in_words(now.average_wait_sec)}"
    )


def matching_text(view: View) -> str:
    """Who waits for opponents, by difficulty."""
    lines = []
    for difficulty in dict.fromkeys(bucket.difficulty for bucket in view.matching):
        buckets = [bucket for bucket in view.matching if bucket.difficulty == difficulty]
        oldest_s = max(bucket.oldest_ms for bucket in buckets) / 1000
        waiting, matched = sum(each.waiting for each in buckets), sum(each.matched for each in buckets)
        lines.append(f"{difficulty}: {waiting:,} wait, the longest {oldest_s:.0f} s; {matched:,} matched")
    return "\n".join(lines) or "Nobody waits."


def tasks_text(view: View) -> str:
    """What waits and is worked on, by kind of task."""
    lines = []
    for queue in view.now.queues:
        kind = queue.queue_id.removeprefix(keys.TASK_QUEUE_PREFIX)
        if kind == queue.queue_id or kind in _LANES:
            continue
        dead = f", {queue.dead_letters:,} given up on" if queue.dead_letters else ""
        lines.append(f"{kind}: {queue.length - queue.pending:,} wait, {queue.pending:,} under way{dead}")
    return "\n".join(lines) or "There are none."


def alerts_text(view: View) -> str:
    """What is open, the oldest first."""
    now_ms = time.time() * 1000
    return "\n".join(
        f"{alert.level} {alert.message} ({in_words((now_ms - alert.opened_at) / 1000)})"
        for alert in view.alerts
    ) or ("None is open." if view.past else "Nobody watches: no operations worker runs.")
