"""What the waiting room promises at every moment, whatever was done to it."""

import math

from storage import keys
from tests.storage.order import Known, Order, admissions
from tests.storage.room import PERMANENT, Seen

WINDOW_MS = 10_000
BURST_MS = 100
LIVE = ("PENDING", "READY")
FINISHED = ("CONSUMED", "CANCELLED", "EXPIRED")


def most_in_window(rate: int) -> int:
    """How many a rate a minute lets in within a window; where that is no whole number, one more."""
    return max(1, math.ceil(rate * WINDOW_MS / 60_000))


class Promises:
    """Compares what is seen after each step with what was seen before it."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self._statuses: dict[str, str] = {}
        self._fresh: list[tuple[int, int]] = []
        self._credit = 0
        self._pace: list[tuple[int, int]] = []
        self._pace_rate, self._pace_ms = "0", 0
        self._order = Order(self.known)

    def check(self, was: Seen, now: Seen, rate: int) -> None:
        """Assert every promise. `rate` is what is admitted a minute."""
        self._check_ledger(now)
        self._check_tickets(was, now)
        self._check_one_each(now)
        self._order.check(was, now)
        self._check_rate(was, now, rate)
        self._check_keys(now)
        self._statuses.update({tid: fields["status"] for tid, fields in now.tickets.items()})

    def in_window(self, now_ms: int) -> int:
        """How many were admitted in the window that ends now, less those who got a given-back place."""
        return sum(count for at, count in self._fresh if at >= now_ms - WINDOW_MS)

    def age(self, ms: int) -> None:
        """Let what was seen be as much older."""
        self._fresh = [(at - ms, count) for at, count in self._fresh]
        self._pace = [(at - ms, count) for at, count in self._pace]
        self._pace_ms -= ms

    def _check_ledger(self, now: Seen) -> None:
        finished = sum(now.count(counter) for counter in ("consumed", "cancelled", "expired"))
        alive = len(now.waiting) + len(now.away) + len(now.ready)
        assert now.count("issued") == len(self.known) == alive + finished

    def _check_tickets(self, was: Seen, now: Seen) -> None:
        assert now.away.keys().isdisjoint(now.waiting)
        assert {tid for tid in now.tickets if now.status(tid) == "PENDING"} == {*now.waiting, *now.away}
        assert {tid for tid in now.tickets if now.status(tid) == "READY"} == now.ready.keys()
        assert now.untold.keys() <= now.ready.keys()
        for tid, fields in now.tickets.items():
            before, known = self._statuses.get(tid), self.known[tid]
            assert before not in FINISHED or fields["status"] == before
            assert ("readyAt" in fields) >= (fields["status"] in {"READY", "CONSUMED"})
            assert fields["status"] != "PENDING" or "readyAt" not in fields
            if before == "READY" and fields["status"] == "PENDING":
                assert was.ready[tid] <= now.now_ms
                assert "passedAt" in fields
            assert fields["uid"] == known.user_id
            if fields["status"] in LIVE:
                assert now.clients[tid] == {fields["clientId"]} == {known.clients[-1]}
            if fields["status"] == "EXPIRED" and before == "READY":
                assert was.ready[tid] <= now.now_ms
            if fields["status"] == "EXPIRED" and before == "PENDING":
                assert "readyAt" in fields or was.abandoned(tid)

    @staticmethod
    def _check_one_each(now: Seen) -> None:
        """Nobody has two tickets that can be used: the one that can is the one that the user's key names."""
        stands = [tid for tid in (*now.waiting, *now.away) if not now.abandoned(tid)]
        stands += [tid for tid, deadline_ms in now.ready.items() if deadline_ms > now.now_ms]
        for tid in stands:
            assert now.holders.get(now.tickets[tid]["uid"]) == tid

    def _check_rate(self, was: Seen, now: Seen, rate: int) -> None:
        if now.bucket.get("rate", "0") != self._pace_rate:
            self._pace, self._pace_rate, self._pace_ms = [], now.bucket["rate"], was.now_ms
        fresh = _added(was.window, now.window)
        admitted, given_back = admissions(was, now), _given_back(was, now)
        refills = len(admitted) - sum(count for _, count in fresh)
        self._credit += len(given_back) - refills
        assert refills >= 0
        assert self._credit >= 0
        assert not admitted or rate > 0
        for at, count in fresh:
            self._fresh.append((at, count))
            assert self.in_window(at) <= most_in_window(rate)
            self._check_pace(at, count, rate)
        # What the bucket believes is what was seen.
        assert int(now.bucket.get("inWindow", 0)) == sum(count for _, count in now.window)
        assert int(now.bucket.get("refunds", 0)) <= self._credit

    def _check_pace(self, at: int, count: int, rate: int) -> None:
        """At one rate, no more than the bucket held at first and has got since; at no time twice as fast."""
        self._pace.append((at, count))
        for since, _ in self._pace:
            admitted = sum(each for when, each in self._pace if when >= since)
            assert admitted <= 1 + rate / 60_000 * (BURST_MS + 2 * (at - since)) + 0.001
        admitted = sum(each for _, each in self._pace)
        assert admitted <= 1 + rate / 60_000 * (BURST_MS + at - self._pace_ms) + 0.001

    @staticmethod
    def _check_keys(now: Seen) -> None:
        """Only the room itself and tickets that are alive stay for as long as nobody removes them."""
        lasting = {name for name, left_ms in now.left_ms.items() if left_ms == -1} - PERMANENT
        live = {*now.waiting, *now.away, *now.ready}
        assert lasting == {keys.ticket(tid) for tid in live} | {keys.ticket_client(tid) for tid in live}


def _given_back(was: Seen, now: Seen) -> list[str]:
    """Tickets that have given a slot back: cancelled or expired as READY, or passed over at the deadline."""
    had = {tid for tid, fields in was.tickets.items() if fields["status"] == "READY"}
    found = [tid for tid in had if now.tickets[tid].get("readyAt") != was.tickets[tid]["readyAt"]]
    for tid, fields in now.tickets.items():
        is_over = fields["status"] in {"CANCELLED", "EXPIRED"} and was.status(tid) not in FINISHED
        if is_over and "readyAt" in fields:
            found.append(tid)
    return found


def _added(was: list[tuple[int, int]], now: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What was appended to a list from whose head something may have been taken."""
    for gone in range(len(was) + 1):
        if now[: len(was) - gone] == was[gone:]:
            return now[len(was) - gone :]
    raise AssertionError("unreachable: the empty list is a beginning of every list")
