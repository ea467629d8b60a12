"""How many workers of a kind there should be, as a table; when more come, and when fewer."""

from collections.abc import Mapping

import msgspec
import pytest

from protocol.messages.monitor import Metrics
from runtime.settings import ScalingSettings
from storage.scaling import Decision
from tests.workers.operations.making import queue, sample, server
from workers.operations.scaling import decide

SETTINGS = ScalingSettings(least=1, most=10, more_after_s=20, fewer_after_s=60)


def logins(count: int, cpu: float, at_s: float = 0.0) -> Metrics:
    """So many login workers, each of which uses so many percent of a core."""
    workers = [
        server(f"login-{number}", server_type="LOGIN", cpu_usage=cpu) for number in range(1, count + 1)
    ]
    return msgspec.structs.replace(sample(*workers), at=int(1_000_000 + at_s * 1000))


@pytest.mark.parametrize(
    ("count", "cpu", "wanted"),
    [
        (1, 81.0, 2),
        (3, 100.0, 6),
        (6, 90.0, 10),  # the bound
        (1, 61.0, 2),
        (2, 70.0, 3),
        (3, 70.0, 5),
        (4, 60.0, 4),  # between the limits nothing changes
        (4, 30.0, 4),
    ],
)
def test_more_come_by_the_load(count: int, cpu: float, wanted: int) -> None:
    assert decide(logins(count, cpu), {}, SETTINGS)["login"].wanted == wanted


@pytest.mark.parametrize(("count", "wanted"), [(10, 7), (7, 4), (4, 2), (3, 2), (2, 1), (1, 1)])
def test_fewer_stay_when_there_has_been_little_to_do_for_a_while(count: int, wanted: int) -> None:
    seen: Mapping[str, Decision] = {}
    for at_s in range(0, 70, 10):
        seen = decide(logins(count, 10.0, at_s), seen, SETTINGS)
        assert seen["login"].wanted == (wanted if at_s >= 60 else count)
    assert "below 30%" in seen["login"].reason


def test_a_moment_of_load_begins_the_wait_anew() -> None:
    seen: Mapping[str, Decision] = {}
    for at_s, cpu in ((0, 10.0), (50, 10.0), (55, 50.0), (60, 10.0), (110, 10.0)):
        seen = decide(logins(4, cpu, at_s), seen, SETTINGS)
        assert seen["login"].wanted == 4
    assert decide(logins(4, 10.0, 120), seen, SETTINGS)["login"].wanted == 2


def test_who_has_just_changed_waits_and_says_so() -> None:
    first = decide(logins(2, 90.0), {}, SETTINGS)
    assert first["login"].wanted == 4
    again = decide(logins(4, 90.0, 10), first, SETTINGS)
    assert again["login"].wanted == 4
    assert again["login"].reason == "load 90% is above 80%: 8 of them in 10 s"
    assert decide(logins(4, 90.0, 20), again, SETTINGS)["login"].wanted == 8


def test_pressed_queues_are_load_too() -> None:
    pressed = sample(server("matching-1", server_type="MATCHING"), queue("game_queue:normal", length=450))
    assert decide(pressed, {}, SETTINGS)["matching"].load == 0.9


def test_nodes_and_kinds_that_work_alone_are_left_as_they_are() -> None:
    others = sample(
        server("SOCK001", cpu_usage=100.0),
        server("status-1", server_type="STATUS", cpu_usage=100.0),
        server("operations-1", server_type="OPERATIONS", cpu_usage=100.0),
        server("login-1", server_type="LOGIN", status_code="DOWN", cpu_usage=100.0),
    )
    assert decide(others, {}, SETTINGS) == {}
