"""What `lobbyctl top` shows: gathered from Redis, and turned into rows of text. Changes nothing."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from redis.asyncio import Redis
from rich.text import Text

from protocol.messages.monitor import Alert, AlertLevel, AlertState, Metrics
from protocol.queues import Lane
from scripts.commands.admission_look import in_words
from scripts.commands.status import FULL_SHARE, LATE_HEARTBEAT_S, OLD_S, STATE_COLOURS
from storage import keys
from storage.admission import AdmissionSettings, Settings
from storage.matches import Bucket, MatchBoard
from storage.monitoring import Monitoring
from workers.operations.alerts import OpenAlert

BARS = "▁▂▃▄▅▆▇█"
SPARK_LENGTH = 30
"""Samples in a sparkline at most: two and a half minutes of those every 5 s."""

NARROW = 24
"""Samples in the sparkline of a pane, of which three stand side by side on 80 columns."""

MINUTES_FROM_S = 600.0

_alert = msgspec.json.Decoder(OpenAlert)
_LANES = {lane.value for lane in Lane}

Row = tuple[Text, ...]
Lines = list[Text]

ALERT_COLOURS = {AlertLevel.WARNING: "yellow", AlertLevel.CRITICAL: "bold red"}


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


def server_rows(view: View, bars: int) -> dict[str, Row]:
    """A row for each process: name, state, cpu and its past, memory, connections, latency, beat."""
    past = {server.server_id: [] for server in view.now.servers}  # type: dict[str, list[float]]
    for sample in view.past:
        for server in sample.servers:
            past.setdefault(server.server_id, []).append(server.cpu_usage)
    return {
        each.server_id: (
            Text(each.server_id),
            Text(each.status_code, STATE_COLOURS.get(each.status_code, "red")),
            _figure(f"{each.cpu_usage:.0f}"),
            Text(sparkline(past[each.server_id][-bars:], 100.0)),
            _figure(f"{each.memory_usage:.1f}"),
            _figure(f"{each.connections:,}"),
            _figure(f"{each.latency_p99_ms:,.0f}"),
            _figure(_age(each.heartbeat_age_sec), each.heartbeat_age_sec > LATE_HEARTBEAT_S),
        )
        for each in view.now.servers
    }


def queue_rows(view: View, bars: int) -> dict[str, Row]:
    """A row for each queue: name, length and its past, pending, oldest, dead letters.

    First those with dead letters, then those in which something waited of late.
    """
    past = {queue.queue_id: [] for queue in view.now.queues}  # type: dict[str, list[float]]
    for sample in view.past:
        for queue in sample.queues:
            past.setdefault(queue.queue_id, []).append(queue.length)
    queues = sorted(
        view.now.queues,
        key=lambda each: (not each.dead_letters, not (each.length or any(past[each.queue_id]))),
    )
    return {
        each.queue_id: (
            Text(each.queue_id),
            _figure(f"{each.length:,}", each.length > FULL_SHARE * each.max_size),
            Text(sparkline(past[each.queue_id][-bars:])),
            _figure(f"{each.pending:,}"),
            _figure(_age(each.oldest_age_sec) if each.length else "–", each.oldest_age_sec > OLD_S),
            _figure(f"{each.dead_letters:,}" if each.dead_letters else "–", each.dead_letters > 0),
        )
        for each in queues
    }


def _figure(text: str, is_bad: bool = False) -> Text:
    return Text(text, "bold red" if is_bad else "", justify="right")


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < MINUTES_FROM_S else f"{seconds / 60:.0f} min"


def admission_lines(view: View) -> Lines:
    """Who waits, how fast they are let in, and how that was lately."""
    now, settings = view.now.admission, view.settings
    waits = [*(sample.admission.waiting for sample in view.past), now.waiting]
    waited = f"waits {in_words(now.average_wait_sec)}"
    return [
        Text(f"PAUSED by {settings.set_by}", "bold yellow")
        if settings.paused
        else Text(f"{settings.total_rate:,.0f} a minute, {waited}"),
        Text(f"{now.waiting:,} wait, {now.ready:,} READY"),
        Text(sparkline(waits[-NARROW:])),
    ]


def matching_lines(view: View) -> Lines:
    """Who waits for opponents, by difficulty."""
    lines = []
    for difficulty in dict.fromkeys(bucket.difficulty for bucket in view.matching):
        buckets = [bucket for bucket in view.matching if bucket.difficulty == difficulty]
        oldest_s = max(bucket.oldest_ms for bucket in buckets) / 1000
        waiting, matched = sum(each.waiting for each in buckets), sum(each.matched for each in buckets)
        lines.append(Text(f"{difficulty}: {waiting:,} ({_age(oldest_s)}), {matched:,} met"))
    return lines or [Text("Nobody waits.")]


def tasks_lines(view: View) -> Lines:
    """What waits, is worked on and was given up on, by kind of task."""
    lines = []
    for queue in view.now.queues:
        kind = queue.queue_id.removeprefix(keys.TASK_QUEUE_PREFIX)
        if kind == queue.queue_id or kind in _LANES:
            continue
        line = Text(f"{kind}: {queue.length - queue.pending:,}, {queue.pending:,}")
        lines.append(line.append(f", {queue.dead_letters:,}", "bold red") if queue.dead_letters else line)
    return lines or [Text("There are none.")]


def alerts_lines(view: View) -> Lines:
    """What is open: what is worst first, the oldest of it first."""
    now_ms = time.time() * 1000
    alerts = sorted(view.alerts, key=lambda alert: alert.level is not AlertLevel.CRITICAL)
    return [
        Text.assemble(
            (f"{alert.level:<8}", ALERT_COLOURS[alert.level]),
            f" {alert.message} ({_age((now_ms - alert.opened_at) / 1000)})",
        )
        for alert in alerts
    ] or [Text("None is open." if view.past else "Nobody watches: no operations worker runs.")]


def fitted(lines: Lines, height: int) -> Text:
    """The lines for which there is room, each cut where it does not fit; says how many more there are."""
    if len(lines) > height > 0:
        lines = [*lines[: height - 1], Text(f"… and {len(lines) - height + 1} more")]
    return Text("\n").join(lines)
