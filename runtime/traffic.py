"""How a process serves: the requests it has answered, those it failed on, and how long they took."""

from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

BOUNDS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000)
"""What a latency is told by: the least of these that it does not exceed."""


class Figures(NamedTuple):
    """The requests answered since the figures were taken last; the latency is 0 where there were none."""

    requests: int
    errors: int
    latency_p99_ms: float


class Traffic:
    """Counts requests. Cheap enough for every one: a few whole numbers and no clock of its own."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS_MS) + 1)
        self._taken = self._snapshot()

    def answered(self, latency_s: float) -> None:
        """A request has its answer, whatever it is."""
        self.requests += 1
        self.seconds += latency_s
        self.buckets[bisect_left(BOUNDS_MS, latency_s * 1000)] += 1

    def failed(self) -> None:
        """The answer to a request was that we failed (status 500 and above)."""
        self.errors += 1

    def take(self) -> Figures:
        """The figures since the last call: let there be one caller."""
        (requests, errors, buckets), self._taken = self._taken, self._snapshot()
        since = [now - then for now, then in zip(self.buckets, buckets, strict=True)]
        return Figures(self.requests - requests, self.errors - errors, _p99_ms(since))

    def _snapshot(self) -> tuple[int, int, list[int]]:
        return self.requests, self.errors, list(self.buckets)


def _p99_ms(buckets: list[int]) -> float:
    most = 0.99 * sum(buckets)
    below = sum(1 for counted in accumulate(buckets) if counted < most)
    return float(BOUNDS_MS[min(below, len(BOUNDS_MS) - 1)]) if most else 0.0
