"""What in a sample is wrong: every limit of docs/operations.md, "Monitoring". Pure."""

from collections.abc import Iterator

import msgspec

from protocol.messages.monitor import AdmissionSample, AlertLevel, Metrics, QueueSample, ServerSample
from runtime.settings import MonitoringSettings

GONE = frozenset({"DOWN", "ERROR"})
ALIVE = frozenset({"STARTING", "READY", "DRAINING"})
LEAST_REQUESTS = 20
"""Of fewer requests, one error is no error rate."""


class Finding(msgspec.Struct, frozen=True):
    """A limit that is passed. `subject` names what by; one subject has one alert."""

    subject: str
    level: AlertLevel
    message: str
    value: float
    limit: float


def findings(sample: Metrics, settings: MonitoringSettings, silence_s: float) -> list[Finding]:
    """All that is wrong. `silence_s` is how old a living process's last report may be."""
    found = [
        *(each for server in sample.servers for each in _server(server, settings, silence_s)),
        *(each for queue in sample.queues for each in _queue(queue, settings)),
        *_errors(sample, settings),
        *_estimates(sample.admission, settings),
    ]
    if sample.redis_memory_bytes > settings.redis_memory_bytes > 0:
        found.append(
            _warning("redis:memory", "Redis uses {value:,.0f} bytes", sample.redis_memory_bytes,
                     settings.redis_memory_bytes)
        )  # fmt: skip
    return found


def _server(server: ServerSample, settings: MonitoringSettings, silence_s: float) -> Iterator[Finding]:
    subject = f"server:{server.server_id}"
    age_s = server.heartbeat_age_sec
    if server.status_code in GONE:
        text = f"{server.server_id} is {server.status_code}, silent for {age_s:.0f} s"
        yield Finding(subject, AlertLevel.CRITICAL, text, age_s, silence_s)
    elif server.status_code in ALIVE and age_s > silence_s:
        yield _warning(subject, f"{server.server_id} is silent for {{value:.0f}} s", age_s, silence_s)
    elif server.latency_p99_ms > settings.latency_p99_ms:
        text = f"one request in a hundred waits {{value:.0f}} ms at {server.server_id}"
        yield _warning(f"latency:{server.server_id}", text, server.latency_p99_ms, settings.latency_p99_ms)


def _queue(queue: QueueSample, settings: MonitoringSettings) -> Iterator[Finding]:
    share = queue.length / max(queue.max_size, 1)
    if share > settings.queue_share:
        text = f"{queue.queue_id} is full to {{value:.0%}}"
        yield _warning(f"queue:{queue.queue_id}", text, share, settings.queue_share)
    elif queue.oldest_age_sec > settings.oldest_age_s:
        text = f"the oldest entry of {queue.queue_id} waits for {{value:.0f}} s"
        yield _warning(f"queue:{queue.queue_id}", text, queue.oldest_age_sec, settings.oldest_age_s)
    if queue.dead_letters > settings.dead_letters:
        text = f"{{value:.0f}} dead letters of {queue.queue_id}: see `lobbyctl dead-letters`"
        yield _warning(f"dead:{queue.queue_id}", text, queue.dead_letters, settings.dead_letters)


def _errors(sample: Metrics, settings: MonitoringSettings) -> Iterator[Finding]:
    alive = [server for server in sample.servers if server.status_code in ALIVE]
    requests, errors = sum(each.requests for each in alive), sum(each.errors for each in alive)
    if requests >= LEAST_REQUESTS and errors / requests > settings.error_share:
        text = f"{{value:.1%}} of {requests:,} requests failed"
        yield _warning("errors", text, errors / requests, settings.error_share)


def _estimates(admission: AdmissionSample, settings: MonitoringSettings) -> Iterator[Finding]:
    # It is measured of those who are let in: while nobody waits it says nothing of now.
    if admission.waiting and admission.estimate_error_sec > settings.estimate_error_s:
        text = "players are let in {value:.1f} s earlier or later than they were told, on the mean"
        yield _warning("estimates", text, admission.estimate_error_sec, settings.estimate_error_s)


def _warning(subject: str, text: str, value: float, limit: float) -> Finding:
    return Finding(subject, AlertLevel.WARNING, text.format(value=value), value, limit)
