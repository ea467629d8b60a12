"""The estimate of a wait, as players are told it."""

import pytest

from workers.login.survey import told_s


@pytest.mark.parametrize(("wait_s", "expected_s"), [(0.0, 0), (0.01, 1), (1.0, 1), (58.8, 59), (None, None)])
def test_a_wait_is_told_in_whole_seconds(wait_s: float | None, expected_s: int | None) -> None:
    assert told_s(wait_s) == expected_s
