"""Figures of what a process has served since they were taken last."""

from runtime.traffic import BOUNDS_MS, Figures, Traffic


def test_nothing_served_has_no_latency() -> None:
    assert Traffic().take() == Figures(0, 0, 0.0)


def test_figures_are_those_since_the_last_time() -> None:
    traffic = Traffic()
    traffic.answered(0.004)
    traffic.answered(0.004)
    traffic.failed()
    assert traffic.take() == Figures(2, 1, 5.0)
    traffic.answered(0.9)
    assert traffic.take() == Figures(1, 0, 1000.0)
    assert traffic.take() == Figures(0, 0, 0.0)
    assert (traffic.requests, traffic.errors) == (3, 1)


def test_one_slow_request_in_a_hundred_is_not_the_p99_and_two_are() -> None:
    traffic = Traffic()
    for _ in range(98):
        traffic.answered(0.0005)
    for _ in range(2):
        traffic.answered(3600.0)
    assert traffic.take().latency_p99_ms == BOUNDS_MS[-1]
    for _ in range(99):
        traffic.answered(0.0005)
    traffic.answered(3600.0)
    assert traffic.take().latency_p99_ms == 1.0
