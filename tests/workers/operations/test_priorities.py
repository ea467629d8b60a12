"""The harder a queue is pressed, the more consumers take from it; by steps, and within bounds."""

import pytest

from protocol.messages.monitor import Metrics, QueueSample
from tests.workers.operations.making import queue, sample, server
from workers.operations.load import behind_the_door, pressure
from workers.operations.priorities import CALM, LEAST, MOST, priorities

HIGH = "login_queue:high"


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
    found = priorities(seen, {HIGH: before})
    assert found[HIGH].weight == weight
    assert why in found[HIGH].reason


def test_what_is_not_urgent_waits_while_the_processors_are_busy() -> None:
    low = queue("portal_queue:low", length=0, oldest_age_sec=0.0)
    high = queue("portal_queue:high", length=0, oldest_age_sec=0.0)
    found = priorities(sample(low, high, server(cpu_usage=95.0)), {})
    assert found["portal_queue:low"].weight == 0.75
    assert "processors are busy" in found["portal_queue:low"].reason
    assert found["portal_queue:high"].weight == 1.0
    weight = 1.0
    for _ in range(20):
        weight = priorities(sample(low, server(cpu_usage=95.0)), {"portal_queue:low": weight})[
            "portal_queue:low"
        ].weight
    assert weight == pytest.approx(LEAST, abs=0.01)


def test_a_kind_has_the_priority_of_its_most_pressed_lane() -> None:
    found = priorities(sample(queue("game_queue:low", length=0), queue("game_queue:high", length=500)), {})
    assert found["game"] == found["game_queue:high"]


def test_only_lanes_of_requests_have_priorities() -> None:
    assert priorities(sample(queue("SOCK001_Q"), queue("status_queue"), queue("event_bus")), {}) == {}


def test_behind_the_door_is_what_players_do_once_they_are_in() -> None:
    assert behind_the_door(sample(queue("login_queue:high", length=900))) == (0.0, "")
    pressed = sample(queue("game_queue:normal", length=250), queue("SOCK001_Q", length=400))
    assert behind_the_door(pressed) == (0.8, "SOCK001_Q")
