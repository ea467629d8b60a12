"""How many workers of a kind there should be, as a table; when more come, and when fewer."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

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
        (1, 80.0, 2),  # not above 80 %, but above 60 %
        (7, 80.0, 10),
        (4, 60.0, 4),  # between the limits nothing changes
        (4, 30.0, 4),
        (10, 400.0, 10),
    ],
)
def test_more_come_by_the_load(count: int, cpu: float, wanted: int) -> None:
    assert decide(logins(count, cpu), {}, SETTINGS)["login"].wanted == wanted


@pytest.mark.parametrize(("count", "wanted"), [(10, 7), (7, 4), (5, 3), (4, 2), (3, 2), (2, 1), (1, 1)])
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


def test_fewer_wait_for_the_end_of_a_change_too() -> None:
    grown = decide(logins(2, 90.0), {}, SETTINGS)
    for at_s in range(10, 60, 10):
        grown = decide(logins(4, 10.0, at_s), grown, SETTINGS)
        assert grown["login"].wanted == 4
    assert decide(logins(4, 10.0, 70), grown, SETTINGS)["login"].wanted == 2


def test_a_decision_stands_until_it_is_carried_out_or_its_time_is_over() -> None:
    first = decide(logins(2, 90.0), {}, SETTINGS)
    some = decide(logins(3, 50.0, 10), first, SETTINGS)
    assert (some["login"].now, some["login"].wanted) == (3, 4)
    assert some["login"].reason == "load 90% is above 80%: 4"
    assert decide(logins(4, 50.0, 15), some, SETTINGS)["login"].wanted == 4
    assert decide(logins(5, 50.0, 15), some, SETTINGS)["login"].wanted == 5  # somebody else has started one
    assert decide(logins(3, 50.0, 20), some, SETTINGS)["login"].wanted == 3


def test_what_was_carried_out_is_over() -> None:
    first = decide(logins(2, 90.0), {}, SETTINGS)
    done = decide(logins(4, 50.0, 5), first, SETTINGS)
    # Drained by hand, or one more by hand: neither is undone.
    assert decide(logins(3, 50.0, 10), done, SETTINGS)["login"].wanted == 3
    assert decide(logins(6, 50.0, 10), done, SETTINGS)["login"].wanted == 6


@given(
    count=st.integers(1, 200),
    work=st.floats(0, 250),
    bounds=st.tuples(st.integers(1, 200), st.integers(1, 200)).map(sorted),
)
@settings(max_examples=300)
def test_a_change_is_not_undone_by_the_next_one_while_there_is_as_much_to_do(
    count: int, work: float, bounds: list[int]
) -> None:
    quick = ScalingSettings(least=bounds[0], most=bounds[1], more_after_s=1, fewer_after_s=1)

    def settled(number: int, at_s: float) -> int:
        """How many there should be in the end of a long time of this work on so many workers."""
        seen: Mapping[str, Decision] = {}
        for second in range(3):
            seen = decide(logins(number, 100 * work / number, at_s + second), seen, quick)
        return seen["login"].wanted

    then = settled(count, 0)
    assert bounds[0] <= then <= bounds[1]
    if bounds[0] <= count <= bounds[1]:
        later = settled(then, 100)
        assert (later - then) * (then - count) >= 0


@pytest.mark.parametrize(
    ("least", "most", "count", "cpu", "wanted", "words"),
    [
        (3, 9, 1, 50.0, 3, "load 50% is as it should be, 3 at least"),
        (3, 9, 4, 10.0, 3, "load 10% is below 30%, 3 at least"),
        (3, 9, 3, 10.0, 3, "load 10% is below 30%, 3 at least"),
        (1, 4, 3, 90.0, 4, "load 90% is above 80%, 4 at most"),
        (1, 4, 4, 90.0, 4, "load 90% is above 80%, 4 at most"),
        (1, 4, 9, 90.0, 4, "load 90% is above 80%, 4 at most"),
        (1, 4, 9, 50.0, 4, "load 50% is as it should be, 4 at most"),
        (1, 4, 9, 10.0, 4, "load 10% is below 30%, 4 at most"),
    ],
)
def test_bounds_hold_whatever_the_load(
    least: int, most: int, count: int, cpu: float, wanted: int, words: str
) -> None:
    bounds = ScalingSettings(least=least, most=most, more_after_s=20, fewer_after_s=60)
    seen: Mapping[str, Decision] = {}
    for at_s in range(0, 70, 10):
        seen = decide(logins(count, cpu, at_s), seen, bounds)
        if seen["login"].wanted == wanted:
            break
    assert seen["login"].wanted == wanted
    assert seen["login"].reason.startswith(words)


def test_pressed_queues_are_load_too() -> None:
    pressed = sample(server("matching-1", server_type="MATCHING"), queue("game_queue:normal", length=450))
    assert decide(pressed, {}, SETTINGS)["matching"].load == 0.9


@pytest.mark.parametrize(
    ("length", "pending", "oldest_age_sec", "load"),
    [
        (50, 8, 20.0, 0.84),  # four rounds and more wait behind what is under way
        (50, 8, 0.5, 0.05),  # a burst
        (8, 8, 600.0, 0.2),  # all is under way, however long it takes: the CPU alone counts
        (3, 0, 600.0, 0.2),  # nothing is under way: they wait for their next try
        (0, 0, 0.0, 0.2),
    ],
)
def test_accepted_work_that_waits_is_load(
    length: int, pending: int, oldest_age_sec: float, load: float
) -> None:
    tasks = queue(
        "portal_queue:file_upload",
        length=length,
        pending=pending,
        oldest_age_sec=oldest_age_sec,
        max_size=9999,
    )
    worker = server("portal-1", server_type="PORTAL", cpu_usage=4.0 if load < 0.1 else 20.0)
    assert decide(sample(worker, tasks), {}, SETTINGS)["portal"].load == load


def test_kinds_do_not_share_their_load() -> None:
    both = sample(
        server("login-1", server_type="LOGIN", cpu_usage=90.0),
        server("ranking-1", server_type="RANKING", cpu_usage=40.0),
        queue("ranking_queue:submit", length=9, pending=1, oldest_age_sec=20.0),
        queue("event_bus", length=900, pending=1, oldest_age_sec=20.0),
        queue("SOCK001_Q", length=900, oldest_age_sec=20.0),
    )
    found = decide(both, {}, SETTINGS)
    assert {kind: (each.load, each.wanted) for kind, each in found.items()} == {
        "login": (0.9, 2),
        "ranking": (0.89, 2),
    }


def test_nodes_and_kinds_that_work_alone_are_left_as_they_are() -> None:
    others = sample(
        server("SOCK001", cpu_usage=100.0),
        server("status-1", server_type="STATUS", cpu_usage=100.0),
        server("operations-1", server_type="OPERATIONS", cpu_usage=100.0),
        server("login-1", server_type="LOGIN", status_code="DOWN", cpu_usage=100.0),
    )
    assert decide(others, {}, SETTINGS) == {}
