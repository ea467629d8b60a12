"""The harder a queue is pressed, the more consumers take from it; by steps, and within bounds."""

import msgspec
import pytest

from protocol.messages.monitor import Metrics, QueueSample
from runtime.settings import MonitoringSettings
from tests.workers.operations.making import queue, sample, server
from workers.operations.load import behind_the_door, pressure
from workers.operations.priorities import CALM, LEAST, MOST, Priority, priorities

HIGH = "login_queue:high"
SETTINGS = MonitoringSettings(redis_memory_bytes=10_000_000)


@pytest.mark.parametrize(
    ("pressed", "expected"),
    [
        (queue(length=0, oldest_age_sec=0.0), 0.0),
        (queue(length=250, oldest_age_sec=0.0), 0.5),
        (queue(length=500, oldest_age_sec=0.0), 1.0),
        (queue(length=1, oldest_age_sec=5.0), 0.5),
        (queue(length=500, oldest_age_sec=20.0), 2.0),
    ],
)
def test_pressure_is_that_of_length_or_of_age(pressed: QueueSample, expected: float) -> None:
    assert pressure(pressed) == expected


@pytest.mark.parametrize(
    ("seen", "before", "weight", "why"),
    [
        (sample(queue(HIGH)), 1.0, 1.01, CALM),
        (sample(queue(HIGH, length=500)), 1.0, 1.5, "500 entries"),
        (sample(queue(HIGH, length=500)), 1.5, 1.75, "500 entries"),
        (sample(queue(HIGH, oldest_age_sec=60.0)), 1.0, 1.5, "60.0 s"),
        (sample(queue(HIGH, oldest_age_sec=60.0)), MOST, MOST, "60.0 s"),
        (sample(queue(HIGH, length=0, oldest_age_sec=0.0)), 2.0, 1.5, CALM),
    ],
)
def test_the_rule(seen: Metrics, before: float, weight: float, why: str) -> None:
    found = priorities(seen, {HIGH: before}, SETTINGS)
    assert found[HIGH].weight == weight
    assert why in found[HIGH].reason


@pytest.mark.parametrize(
    ("strained", "why"),
    [
        (sample(server(cpu_usage=95.0)), "while the processors are busy"),
        (sample(server(cpu_usage=60.0), server(cpu_usage=100.0)), "while the processors are busy"),
        (sample(*[server(memory_usage=20.0, host="one")] * 4), "while a machine is short of memory"),
        (sample(redis_memory_bytes=8_000_000), "while Redis is short of memory"),
    ],
)
def test_what_is_not_urgent_waits_where_there_is_too_little(strained: Metrics, why: str) -> None:
    low = queue("portal_queue:low", length=0, oldest_age_sec=0.0)
    high = queue("portal_queue:high", length=0, oldest_age_sec=0.0)
    seen = msgspec.structs.replace(strained, queues=[low, high])
    found = priorities(seen, {}, SETTINGS)
    assert found["portal_queue:low"] == Priority(0.75, f"calm; what is not urgent waits {why}")
    assert found["portal_queue:high"] == Priority(1.0, "calm")
    for _ in range(20):
        found = priorities(seen, {name: each.weight for name, each in found.items()}, SETTINGS)
    assert found["portal_queue:low"].weight == pytest.approx(LEAST, abs=0.01)


@pytest.mark.parametrize(
    "enough",
    [
        sample(server(cpu_usage=70.0), server(cpu_usage=80.0)),
        sample(server(cpu_usage=95.0, status_code="STOPPED")),
        sample(*[server(memory_usage=20.0, host=host) for host in ("one", "one", "one", "two")]),
        sample(redis_memory_bytes=7_999_999),
    ],
)
def test_where_there_is_enough_nothing_waits(enough: Metrics) -> None:
    low = queue("portal_queue:low", length=0, oldest_age_sec=0.0)
    found = priorities(msgspec.structs.replace(enough, queues=[low]), {}, SETTINGS)
    assert found["portal_queue:low"] == Priority(1.0, "calm")


def test_a_kind_has_the_priority_of_its_most_pressed_lane() -> None:
    found = priorities(
        sample(queue("game_queue:low", length=0), queue("game_queue:high", length=500)), {}, SETTINGS
    )
    assert found["game"] == found["game_queue:high"]


def test_what_workers_share_their_capacity_with_has_a_priority() -> None:
    others = sample(queue("SOCK001_Q"), queue("status_queue"), queue("portal_queue:file_upload"))
    assert priorities(others, {}, SETTINGS) == {}
    shared = sample(queue("event_bus", length=0), queue("ranking_queue:submit", oldest_age_sec=60.0))
    found = priorities(shared, {}, SETTINGS)
    assert {name: each.weight for name, each in found.items()} == {
        "event_bus": pytest.approx(1.0, abs=0.01),
        "ranking_queue:submit": 1.5,
    }


def test_behind_the_door_is_what_players_do_once_they_are_in() -> None:
    assert behind_the_door(sample(queue("login_queue:high", length=900))) == (0.0, "")
    pressed = sample(queue("game_queue:normal", length=250), queue("SOCK001_Q", length=400))
    assert behind_the_door(pressed) == (0.8, "SOCK001_Q")
