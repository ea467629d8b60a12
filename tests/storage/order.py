"""What the waiting room promises of the order: who is admitted before whom, and how long a wait can be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.tickets import Tier
from tests.storage.room import WAIT_FACTOR, Seen

TIERS = [tier.name for tier in Tier]


@dataclass
class Known:
    """A ticket as those who use it know it; the last client id is the good one.

    `ahead` is how many places that are given out by arrival can go to others before: one to each of those who
    came earlier, and one more whenever one of them was READY, lost the connection and keeps the place.
    `admissions` are those since it was issued.
    """

    tid: str
    user_id: str
    clients: list[str] = field(default_factory=list)
    ahead: int = -1
    admissions: int = 0


def admissions(was: Seen, now: Seen) -> list[str]:
    """The tickets that have become READY."""
    return [
        tid
        for tid, fields in now.tickets.items()
        if "readyAt" in fields and fields["readyAt"] != was.tickets.get(tid, {}).get("readyAt")
    ]


class Order:
    """Compares what is seen after each step with what was seen before it. `known` are in order of issue."""

    def __init__(self, known: Mapping[str, Known]) -> None:
        self._known = known

    def check(self, was: Seen, now: Seen) -> None:
        """Assert the order, the places that were told, and the bound on a wait."""
        issued = list(self._known)
        assert now.waiting == sorted(now.waiting, key=lambda tid: (_band(now, tid), issued.index(tid)))
        self._check_nobody_overtakes(was, now, issued)
        self._check_places(was, now)
        self._count(was, now)
        for tid in now.waiting:
            known = self._known[tid]
            if "passedAt" not in now.tickets[tid]:
                assert known.admissions < math.ceil(WAIT_FACTOR * (known.ahead + 1))

    def _check_nobody_overtakes(self, was: Seen, now: Seen, issued: list[str]) -> None:
        """Who came later in a tier is not READY while an earlier one waits who was not passed over."""
        for ready in admissions(was, now):
            for tid in issued[: issued.index(ready)]:
                if tid in was.waiting and tid in now.waiting and _band(now, tid) == _band(now, ready):
                    assert now.tickets[tid].get("passedAt") != was.tickets[tid].get("passedAt")

    @staticmethod
    def _check_places(was: Seen, now: Seen) -> None:
        """A place gets worse by arrivals of higher tiers alone, and the best one stays known."""
        for tid, fields in was.tickets.items():
            after = now.tickets.get(tid, fields)
            told, tells = int(fields["position"]), int(after["position"])
            if fields["status"] == after["status"] == "PENDING" and 0 < told < tells:
                assert int(after["higher"]) > int(fields["higher"])
            if fields["status"] == after["status"] == "PENDING" and told and tells:
                assert int(after["best"]) == min(int(fields["best"]), tells)

    def _count(self, was: Seen, now: Seen) -> None:
        """Note who came before whom, and how many have been admitted meanwhile."""
        admitted, earlier = len(admissions(was, now)), list[Known]()
        lost = {tid for tid in was.ready if now.status(tid) == "PENDING"}
        for known in self._known.values():
            if known.ahead < 0:
                in_line = {*was.waiting, *was.away, *now.waiting, *now.away, *now.ready}
                known.ahead = sum(each.tid in in_line for each in earlier)
            else:
                known.admissions += admitted
                known.ahead += sum(each.tid in lost for each in earlier)
            earlier.append(known)


def _band(seen: Seen, tid: str) -> int:
    return TIERS.index(seen.tickets[tid]["tier"])
