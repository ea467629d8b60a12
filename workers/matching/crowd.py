"""Everybody who waits, as one worker knows it: who may be matched, who is away, who is being matched.

Pure, as the pairing is: the feed's changes come in, matches that ought to be made go out.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from storage.matches import Absence, Verdict, Waiter
from workers.matching.pairing import Match, Player, Pool, Reach, Widening


def widening(text: str) -> Widening:
    """The search of a setting such as "0:0 5:3 10:10+". Raises ValueError for one that does not widen."""
    rows = []
    for step in text.split():
        after_s, _, levels = step.partition(":")
        rows.append(Reach(int(after_s) * 1000, int(levels.rstrip("+")), levels.endswith("+")))
    return Widening(rows)


@dataclass(frozen=True, slots=True)
class Found:
    """A match that ought to be made."""

    difficulty: str
    match: Match


class Crowd:
    """The waiting players by difficulty and by how many shall play. Times in ms since the epoch."""

    def __init__(self, widenings: Mapping[str, Widening], by_skill: Set[str] = frozenset()) -> None:
        """`widenings` has the search of each difficulty; `by_skill` are those at which skill counts."""
        self._widenings = widenings
        self._by_skill = by_skill
        self._waiters: dict[int, Waiter] = {}
        self._away: dict[int, str] = {}
        self._pools: dict[tuple[str, int], Pool] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def entries(self) -> Set[int]:
        """The stays of all who wait."""
        return self._waiters.keys()

    # Coming and going.

    def hear(self, changes: Iterable[Waiter | int]) -> None:
        """Take in who came and went, in order."""
        for change in changes:
            if isinstance(change, int):
                self._remove(change)
            else:
                self._come(change)

    def replace(self, waiters: Iterable[Waiter]) -> None:
        """Forget all, and begin with these."""
        self._waiters.clear()
        self._away.clear()
        self._pools.clear()
        for waiter in sorted(waiters, key=lambda each: each.since_ms):
            self._come(waiter)

    @property
    def away(self) -> Mapping[int, str]:
        """The user ids of those who are not connected, by entry."""
        return self._away

    def back(self, entries: Iterable[int]) -> list[int]:
        """These are connected again. Answers those who still wait."""
        here = [entry for entry in entries if self._away.pop(entry, None) is not None]
        for entry in here:
            self._put(self._waiters[entry])
        return here

    # Matching.

    def meet(self, entry: int, now_ms: int) -> Found | None:
        """The best match for one who waits. Its players are not matched with others until it is settled."""
        waiter = self._waiters.get(entry)
        if waiter is None:
            return None
        pool = self._pool(waiter)
        match = pool.meet(entry, now_ms) if entry in pool else None
        if match is None:
            return None
        for player in match.players:
            pool.remove(player.entry)
        return Found(waiter.difficulty, match)

    def sweep(self, now_ms: int) -> Iterator[Found]:
        """All matches that are possible now, as `meet` has them."""
        for (difficulty, _), pool in self._pools.items():
            for match in pool.sweep(now_ms):
                yield Found(difficulty, match)

    def settle(self, found: Found, verdict: Verdict) -> list[int]:
        """Take in whether a match was made; the feed says it, too. Answers who may be matched again."""
        free = []
        for player, presence in zip(found.match.players, verdict.players, strict=True):
            waiter = self._waiters.get(player.entry)
            if waiter is None:
                continue
            if verdict.is_made or presence is Absence.GONE:
                self._remove(player.entry)
            elif presence is Absence.AWAY:
                self._away[player.entry] = player.user_id
            else:
                self._put(waiter)
                free.append(player.entry)
        return free

    # Looking.

    def in_reach(self, waiter: Waiter, now_ms: int) -> int:
        """How many, the player among them, the player's search reaches now."""
        return self._pool(waiter).in_reach(_player(waiter), now_ms)

    # Its own.

    def _pool(self, waiter: Waiter) -> Pool:
        key = (waiter.difficulty, waiter.size)
        if key not in self._pools:
            self._pools[key] = Pool(
                self._widenings[waiter.difficulty],
                waiter.size,
                by_skill=waiter.difficulty in self._by_skill,
            )
        return self._pools[key]

    def _come(self, waiter: Waiter) -> None:
        self._waiters[waiter.entry] = waiter
        self._put(waiter)

    def _put(self, waiter: Waiter) -> None:
        self._away.pop(waiter.entry, None)
        self._pool(waiter).add(_player(waiter))

    def _remove(self, entry: int) -> None:
        waiter = self._waiters.pop(entry, None)
        self._away.pop(entry, None)
        if waiter is not None:
            self._pool(waiter).remove(entry)


def _player(waiter: Waiter) -> Player:
    return Player(waiter.user_id, waiter.entry, waiter.level, waiter.region, waiter.since_ms, waiter.skill)
