"""The estimate of a wait."""

import pytest

from workers.login.survey import estimated_wait_s


@pytest.mark.parametrize(
    ("position", "rate_per_minute", "expected_s"),
    [
        (0, 600, 0),
        (1, 600, 1),
        (10, 600, 1),
        (11, 600, 2),
        (600, 600, 60),
        (1, 3, 20),
        (100_000, 102_000, 59),
    ],
)
def test_a_place_takes_as_long_as_all_before_it(
    position: int, rate_per_minute: float, expected_s: int
) -> None:
    assert estimated_wait_s(position, rate_per_minute) == expected_s


def test_a_wait_is_unknown_while_nobody_is_admitted() -> None:
    assert estimated_wait_s(1, 0) is None
    assert estimated_wait_s(1, -1) is None
