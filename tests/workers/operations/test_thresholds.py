"""What in a sample is wrong."""

import pytest

from protocol.messages.monitor import AlertLevel, Metrics
from runtime.settings import Config, MonitoringSettings
from tests.workers.operations.making import admission, queue, sample, server
from workers.operations.thresholds import findings
from workers.operations.watch import MISSED

SETTINGS = MonitoringSettings(redis_memory_bytes=2_000_000)
SILENCE_S = 10.0
WARNING, CRITICAL = AlertLevel.WARNING, AlertLevel.CRITICAL


def test_where_all_is_well_there_is_nothing_to_say() -> None:
    assert findings(sample(server(), queue()), SETTINGS, SILENCE_S) == []


@pytest.mark.parametrize(
    ("wrong", "subject", "level", "words"),
    [
        (sample(server(status_code="DOWN", heartbeat_age_sec=16.0)), "server:SOCK001", CRITICAL, "DOWN"),
        (sample(server(status_code="ERROR")), "server:SOCK001", CRITICAL, "ERROR"),
        (sample(server(heartbeat_age_sec=10.1)), "server:SOCK001", WARNING, "silent for 10 s"),
        (sample(server(latency_p99_ms=2000.0)), "latency:SOCK001", WARNING, "2000 ms"),
        (sample(queue(length=801)), "queue:login_queue:high", WARNING, "full to 80%"),
        (sample(queue(oldest_age_sec=31.0)), "queue:login_queue:high", WARNING, "31 s"),
        (sample(queue(dead_letters=1)), "dead:login_queue:high", WARNING, "1 dead letters"),
        (sample(server(errors=11)), "errors", WARNING, "1.1% of 1,000"),
        (sample(redis_memory_bytes=2_000_001), "redis:memory", WARNING, "2,000,001"),
        (sample(admission(waiting=1, estimate_error_sec=15.1)), "estimates", WARNING, "15.1 s earlier or"),
    ],
)
def test_each_limit_is_noticed(wrong: Metrics, subject: str, level: AlertLevel, words: str) -> None:
    (finding,) = findings(wrong, SETTINGS, SILENCE_S)
    assert (finding.subject, finding.level) == (subject, level)
    assert words in finding.message


@pytest.mark.parametrize(
    "well",
    [
        sample(server(heartbeat_age_sec=10.0)),
        sample(server(status_code="STOPPED", heartbeat_age_sec=3600.0)),
        sample(server(latency_p99_ms=1000.0)),
        sample(queue(length=800, oldest_age_sec=30.0)),
        sample(server(errors=10)),
        sample(server(requests=19, errors=19)),
        sample(redis_memory_bytes=2_000_000),
        sample(admission(waiting=1, estimate_error_sec=15.0)),
        sample(admission(waiting=0, estimate_error_sec=60.0)),
    ],
)
def test_at_the_limit_all_is_well(well: Metrics) -> None:
    assert findings(well, SETTINGS, SILENCE_S) == []


def test_errors_are_judged_over_all_processes_that_live() -> None:
    spread = sample(server("login-1", errors=9), server("login-2", errors=12), server("login-3", errors=10))
    assert [finding.subject for finding in findings(spread, SETTINGS, SILENCE_S)] == ["errors"]
    dead = sample(server("login-1"), server("login-2", status_code="STOPPED", errors=1000))
    assert findings(dead, SETTINGS, SILENCE_S) == []


def test_by_default_a_dead_process_is_told_of_within_fifteen_seconds() -> None:
    config = Config()
    assert config.status.heartbeat_s * MISSED + config.monitoring.every_s <= 15.0
