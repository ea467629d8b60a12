"""Buckets by any clock, and what counts as one address."""

import gc

import pytest
from hypothesis import given, strategies as st

from socketd.limits import REMEMBERED_S, TokenBucket, UserBuckets, network_of

RATE = 10

costs = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 9)), max_size=60)


@given(costs)
def test_a_bucket_lets_through_no_more_than_its_rate(asked: list[tuple[float, int]]) -> None:
    """A second's worth, what came in meanwhile, and what the last one owes."""
    bucket, now_s, spent = TokenBucket(RATE, 0.0), 0.0, 0
    for pause_s, cost in asked:
        now_s += pause_s
        if not bucket.take(now_s, cost):
            spent += cost
    assert spent <= RATE * (1 + now_s) + 9


@given(costs)
def test_who_waits_as_told_is_let_through(asked: list[tuple[float, int]]) -> None:
    bucket, now_s = TokenBucket(RATE, 0.0), 0.0
    for pause_s, cost in asked:
        now_s += pause_s
        wait_s = bucket.take(now_s, cost)
        if wait_s:
            now_s += wait_s + 1e-6
            assert bucket.take(now_s, cost) == 0.0


def test_what_was_taken_and_not_there_is_owed() -> None:
    bucket = TokenBucket(RATE, 0.0)
    assert [bucket.take(0.0, 9) for _ in range(2)] == [0.0, 0.0]
    assert bucket.take(0.0) == pytest.approx(0.9)
    assert bucket.take(0.95, 9) == 0.0


def test_a_user_has_one_bucket_on_all_connections() -> None:
    users = UserBuckets(RATE)
    first, second = users.take_up("ada", 0.0), users.take_up("ada", 5.0)
    assert first is second
    assert users.take_up("eve", 0.0) is not first


def test_a_bucket_outlasts_a_reconnect() -> None:
    users = UserBuckets(RATE)
    bucket = users.take_up("ada", 0.0)
    assert all(bucket.take(0.0) == 0.0 for _ in range(RATE))
    users.hand_back(bucket, 0.0)
    del bucket
    gc.collect()
    assert users.take_up("ada", 0.05).take(0.05) > 0


def test_a_bucket_is_forgotten_when_it_would_be_full() -> None:
    users = UserBuckets(RATE)
    users.hand_back(users.take_up("ada", 0.0), 0.0)
    users.hand_back(users.take_up("eve", REMEMBERED_S), REMEMBERED_S)
    assert len(users._buckets) == 2
    users.hand_back(users.take_up("eve", 3.0), 3.0)
    gc.collect()
    assert list(users._buckets) == ["eve"]


@pytest.mark.parametrize(
    ("address", "prefix", "network"),
    [
        ("203.0.113.7", 64, "203.0.113.7"),
        ("::ffff:203.0.113.7", 64, "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::/48"),
        ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6/128"),
        ("fe80::1%eth0", 64, "fe80::/64"),
        ("unknown", 64, "unknown"),
        ("", 64, ""),
    ],
)
def test_what_counts_as_one_address(address: str, prefix: int, network: str) -> None:
    assert network_of(address, prefix) == network
