"""When those come back whom a full waiting room turned away."""

from collections import Counter

import pytest

from workers.login.overflow import LONGEST_MS, SOONEST_MS, return_ms


def test_returns_are_spread_over_the_time_that_the_room_needs_to_drain() -> None:
    drain_ms = 500_000  # 50,000 at 100 a second
    returns = [return_ms(50_000, 6_000) for _ in range(2_000)]
    assert min(returns) >= SOONEST_MS
    assert max(returns) <= drain_ms
    by_tenths = Counter(10 * each // drain_ms for each in returns)
    assert min(by_tenths[tenth] for tenth in range(10)) > 100


@pytest.mark.parametrize(("waiting", "rate", "longest_ms"), [(1, 6_000, SOONEST_MS), (50_000, 1, LONGEST_MS)])
def test_no_return_is_at_once_or_too_late(waiting: int, rate: float, longest_ms: int) -> None:
    assert all(SOONEST_MS <= return_ms(waiting, rate) <= longest_ms for _ in range(100))


def test_while_nobody_is_let_in_returns_are_spread_over_the_longest_time() -> None:
    returns = [return_ms(10, 0) for _ in range(200)]
    assert LONGEST_MS / 2 < max(returns) <= LONGEST_MS
