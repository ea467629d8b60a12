"""The door's rule as a table: what is pressed behind it, and how far it is open then."""

import pytest

from workers.operations.door import CALM_SAMPLES, Door, Opening, after

OPEN, SLOWED, CLOSED = Opening.OPEN, Opening.SLOWED, Opening.CLOSED


@pytest.mark.parametrize(
    ("pressures", "openings"),
    [
        ([0.0, 0.3, 0.49], [OPEN, OPEN, OPEN]),
        ([0.5, 0.6], [SLOWED, SLOWED]),
        ([0.6, 1.0, 3.0], [SLOWED, CLOSED, CLOSED]),
        ([1.2], [CLOSED]),
        # From closed it opens in two steps, each after so many calm samples.
        ([1.0, *[0.1] * 6], [CLOSED, CLOSED, CLOSED, SLOWED, SLOWED, SLOWED, OPEN]),
        # What is neither calm nor too much keeps it as it is, and calm begins anew.
        ([0.5, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1], [SLOWED, SLOWED, SLOWED, SLOWED, SLOWED, SLOWED, OPEN]),
        ([1.0, 0.6, 0.6], [CLOSED, CLOSED, CLOSED]),
        ([1.0, 0.1, 0.1, 0.1, 1.0], [CLOSED, CLOSED, CLOSED, SLOWED, CLOSED]),
    ],
)
def test_the_rule(pressures: list[float], openings: list[Opening]) -> None:
    door, seen = Door(), []
    for pressure in pressures:
        door = after(door, pressure, "game_queue:normal")
        seen.append(door.opening)
    assert seen == openings
    assert CALM_SAMPLES == 3


def test_it_says_why_until_it_is_open() -> None:
    closed = after(Door(), 1.5, "ranking_queue:high")
    assert closed.reason == "ranking_queue:high is pressed to 150% of what it should bear"
    for _ in range(2 * CALM_SAMPLES - 1):
        closed = after(closed, 0.0, "")
        assert closed.reason
    assert after(closed, 0.0, "") == Door()
