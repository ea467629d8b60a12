"""Who meets whom: the players that wait for one kind of match, and the best matches among them.

Pure: no input or output, and no clock; times are ms since the epoch and handed in. Players meet who
want the same difficulty and are near in level and region, the less near the longer they have waited:

- A match is searched around its oldest player: everybody in it is within so many levels of that one, and of
  one region unless the oldest has waited long enough for others. A player without a region fits any.
- Among those who may meet, the closest do; of equals, who has waited longer.
- Who has waited as long as the search takes to get as wide as it ever does is passed over by nobody younger.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import msgspec

MOST_LEVEL = 100

REGION_COST = 10.0
"""Another region is as bad as so many levels: a player feels both, and the round trip more."""

LOOKED_AT = 8
"""Players of one level and region that are compared by skill: the oldest of them."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the search goes for who has waited `after_ms`: levels up and down, other regions too."""

    after_ms: int
    levels: int
    other_regions: bool = False


class Widening:
    """How the search for one difficulty widens with the waiting time."""

    def __init__(self, rows: Sequence[Reach]) -> None:
        """`rows` in order of time; the first begins at 0, and none is narrower than the one before.

        Raises ValueError for others.
        """
        if not rows or rows[0].after_ms != 0:
            raise ValueError("the first row must begin at 0 s")
        for row, following in pairwise(rows):
            if following.after_ms <= row.after_ms:
                raise ValueError("each row must begin later than the one before")
            if following.levels < row.levels or following.other_regions < row.other_regions:
                raise ValueError("a search never gets narrower")
        self.rows = tuple(rows)
        self.urgent_after_ms = rows[-1].after_ms

    def at(self, waited_ms: float) -> Reach:
        """The reach of a player who has waited so long."""
        found = self.rows[0]
        for row in self.rows[1:]:
            if row.after_ms > waited_ms:
                break
            found = row
        return found

    def is_urgent(self, waited_ms: float) -> bool:
        """Whether a player is passed over by nobody younger any more."""
        return waited_ms >= self.urgent_after_ms


class Player(msgspec.Struct, frozen=True):
    """A player who waits. `entry` names this stay in the queue and is never used twice.

    `region` is "" where any will do; `skill` is in levels, 0 where it does not count.
    """

    user_id: str
    entry: int
    level: int
    region: str
    since_ms: int
    skill: float = 0.0

    @property
    def age(self) -> tuple[int, int]:
        """Sorts the oldest first."""
        return self.since_ms, self.entry


@dataclass(frozen=True, slots=True)
class Match:
    """Players who meet, the oldest first. `cost` is how far the others are from that one, in levels."""

    players: tuple[Player, ...]
    cost: float

    @property
    def level(self) -> int:
        """The level around which they were searched."""
        return self.players[0].level

    @property
    def region(self) -> str:
        """The region of the oldest who has one, "" where nobody has."""
        return next((player.region for player in self.players if player.region), "")

    @property
    def quality(self) -> float:
        """1 for equals, a half at ten levels or another region, towards 0."""
        return quality(self.cost)


def quality(cost: float) -> float:
    """How good a match of this cost is: 1 for equals, towards 0."""
    return 1.0 / (1.0 + cost / REGION_COST)


def cost_between(one: Player, other: Player) -> float:
    """How far two players are from each other, in levels."""
    cost = abs(one.level - other.level) + abs(one.skill - other.skill)
    return cost + (0.0 if _same_region(one.region, other.region) else REGION_COST)


def _same_region(one: str, other: str) -> bool:
    return one == other or not one or not other


_Bucket = OrderedDict[int, Player]
"""The players of one level and region by entry, the oldest first."""


class Pool:
    """The players who wait for matches of `size` players by the rules of one widening."""

    def __init__(self, widening: Widening, size: int, *, by_skill: bool = False) -> None:
        self._widening = widening
        self._size = size
        self._compared = LOOKED_AT if by_skill else 1
        self._players: dict[int, Player] = {}
        self._levels: list[dict[str, _Bucket]] = [{} for _ in range(MOST_LEVEL + 1)]
        self._counts: dict[str, list[int]] = {}
        self._ages: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._players)

    def __iter__(self) -> Iterator[Player]:
        return iter(self._players.values())

    def __contains__(self, entry: int) -> bool:
        return entry in self._players

    # Coming and going.

    def add(self, player: Player) -> None:
        """Take a player in; one who is in already stays as they are."""
        if player.entry in self._players:
            return
        self._players[player.entry] = player
        bucket = self._levels[player.level].setdefault(player.region, OrderedDict())
        is_late = bool(bucket) and player.age < bucket[next(reversed(bucket))].age
        bucket[player.entry] = player
        if is_late:  # they were put back, with their age
            ordered = sorted(bucket.values(), key=lambda each: each.age)
            bucket.clear()
            bucket.update((each.entry, each) for each in ordered)
        self._counts.setdefault(player.region, [0] * (MOST_LEVEL + 1))[player.level] += 1
        heapq.heappush(self._ages, player.age)

    def remove(self, entry: int) -> None:
        """Let a player go; nothing happens when they are not in."""
        player = self._players.pop(entry, None)
        if player is None:
            return
        regions = self._levels[player.level]
        del regions[player.region][entry]
        if not regions[player.region]:
            del regions[player.region]
        self._counts[player.region][player.level] -= 1

    # Meeting.

    def meet(self, entry: int, now_ms: int) -> Match | None:
        """The best match that this player of the pool makes possible. It is not taken out.

        Where nothing was possible without the player, nothing else is possible now.
        """
        newcomer = self._players[entry]
        for anchor in self._anchors(newcomer, now_ms):
            match = self._around(anchor, now_ms, newcomer)
            if match is not None:
                return match
        return None

    def sweep(self, now_ms: int) -> list[Match]:
        """All the matches that are possible now, the oldest players first. They are taken out.

        Only who is the oldest of a level and region is asked: when that one meets nobody, the others of the
        same level and region, whose search is no wider, meet nobody either.
        """
        matches = []
        heads = [_head(bucket).age for regions in self._levels for bucket in regions.values()]
        heapq.heapify(heads)
        while heads:
            _, entry = heapq.heappop(heads)
            player = self._players.get(entry)
            match = self._around(player, now_ms) if player is not None else None
            if match is None:
                continue
            matches.append(match)
            for each in match.players:
                self.remove(each.entry)
            for each in match.players:
                bucket = self._levels[each.level].get(each.region)
                if bucket:
                    heapq.heappush(heads, _head(bucket).age)
        return matches

    def in_reach(self, player: Player, now_ms: int) -> int:
        """How many of the pool, the player among them, the player's search reaches now."""
        reach = self._widening.at(now_ms - player.since_ms)
        if reach.other_regions:
            return self._count(player.level, reach, None)
        regions = (player.region,) if player.region else tuple(self._counts)
        return max((self._count(player.level, reach, region) for region in regions), default=0)

    # Searching.

    def _anchors(self, newcomer: Player, now_ms: int) -> list[Player]:
        """Those around whom a match with the newcomer may be found, the most wanted first.

        The oldest of a level and region can do all that the others there can.
        """
        oldest_ms = self._oldest_since_ms()
        may_stop = self._size == 2 and not self._widening.is_urgent(now_ms - oldest_ms)
        ranked: list[tuple[tuple[float, ...], Player]] = []
        nearest = math.inf
        widest = self._widening.at(now_ms - oldest_ms)  # nobody's search goes further than the oldest's
        region = None if widest.other_regions else newcomer.region or None
        for distance in range(widest.levels + 1):
            if may_stop and nearest < distance:
                break
            for bucket in self._buckets(newcomer.level, distance, region):
                for head in islice(bucket.values(), self._compared):
                    if head.age <= newcomer.age and self._reaches(head, newcomer, now_ms):
                        cost = cost_between(head, newcomer)
                        ranked.append((self._rank(head, cost, now_ms), head))
                        nearest = nearest if head is newcomer else min(nearest, cost)
        return [head for _, head in sorted(ranked, key=lambda each: each[0])]

    def _rank(self, anchor: Player, cost: float, now_ms: int) -> tuple[float, ...]:
        """Sorts the urgent first, by age, then the others by how near they are."""
        if self._widening.is_urgent(now_ms - anchor.since_ms):
            return (0, *anchor.age)
        return (1, cost, *anchor.age)

    def _reaches(self, anchor: Player, other: Player, now_ms: int) -> bool:
        reach = self._widening.at(now_ms - anchor.since_ms)
        if abs(anchor.level - other.level) > reach.levels:
            return False
        return reach.other_regions or _same_region(anchor.region, other.region)

    def _oldest_since_ms(self) -> int:
        """When the oldest of the pool, which is not empty, came."""
        while self._ages[0][1] not in self._players:
            heapq.heappop(self._ages)
        return self._ages[0][0]

    def _around(self, anchor: Player, now_ms: int, must: Player | None = None) -> Match | None:
        """The best match of which the anchor is the oldest, with `must` in it."""
        reach = self._widening.at(now_ms - anchor.since_ms)
        if reach.other_regions:
            return self._of_region(None, anchor, reach, must)
        region = anchor.region or (must.region if must is not None else "")
        if region:
            return self._of_region(region, anchor, reach, must)
        # Neither says a region: whoever else comes in decides.
        tried = (self._of_region(each, anchor, reach, must) for each in self._counts)
        return min(filter(None, tried), key=lambda match: match.cost, default=None)

    def _of_region(
        self, region: str | None, anchor: Player, reach: Reach, must: Player | None
    ) -> Match | None:
        """The best match of a region and of those whom any suits; of all regions where it is None."""
        if self._count(anchor.level, reach, region) < self._size:
            return None
        fixed = [anchor] if must is None or must is anchor else [anchor, must]
        need = self._size - len(fixed)
        costs: list[tuple[float, tuple[int, int], Player]] = []
        for distance in range(reach.levels + 1):
            if len(costs) >= need and (not need or heapq.nsmallest(need, costs)[-1][0] < distance):
                break
            for bucket in self._buckets(anchor.level, distance, region):
                younger = (each for each in bucket.values() if each.age > anchor.age and each is not must)
                costs += [
                    (cost_between(anchor, each), each.age, each)
                    for each in islice(younger, need - 1 + self._compared)
                ]
        if len(costs) < need:
            return None
        fellows = [*fixed[1:], *(each for *_, each in heapq.nsmallest(need, costs))]
        fellows.sort(key=lambda each: each.age)
        return Match((anchor, *fellows), max(cost_between(anchor, each) for each in fellows))

    def _buckets(self, level: int, distance: int, region: str | None) -> Iterator[_Bucket]:
        """The players so far from a level, of a region and of those whom any suits, or of all."""
        for at in (level - distance, level + distance)[: 1 + (distance > 0)]:
            regions = self._levels[at] if 0 < at <= MOST_LEVEL else {}
            for each, bucket in regions.items():
                if region is None or not each or each == region:
                    yield bucket

    def _count(self, level: int, reach: Reach, region: str | None) -> int:
        """How many are in reach of a level, of a region and of those whom any suits, or of all."""
        low, high = max(0, level - reach.levels), level + reach.levels + 1
        regions = self._counts if region is None else {"", region}
        return sum(sum(self._counts[each][low:high]) for each in regions if each in self._counts)


def _head(bucket: _Bucket) -> Player:
    return next(iter(bucket.values()))
