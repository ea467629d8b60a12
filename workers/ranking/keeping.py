"""Keeping accepted scores: those that have gathered together, once each, whatever dies when.

SQL first, in one transaction; then the boards; then who is to hear of it; then the entries are acknowledged.
Each step comes out the same when it is done again, so whoever dies anywhere leaves the batch to another
worker, who does all of it again. While a store is away the batch is held and tried again; its entries stay
this worker's.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import structlog

from storage.boards import Best, Boards, Group, Raised, RemovedLost
from storage.errors import StoreAway
from storage.friends import Friends
from storage.periods import ALL, Calendar
from storage.queues import Entry
from storage.removals import Removals
from storage.scores import Accepted, Scores, SecondResults, decode_score
from storage.servers import now_ms
from workers.consumer import Settle
from workers.ranking.updates import updates_of
from workers.telling import Telling

log = structlog.get_logger(__name__)

MOST_TOGETHER = 1000
"""Scores of one transaction: far below the database's time limit."""

GATHER_S = 0.05
"""How long a batch waits for company: a score has a second to become visible, and a batch of one costs nearly
as much as one of a hundred."""

AWAY_PAUSE_S = 0.5

BATCHES_AT_ONCE = 2
"""So that the database is at work on one while Redis is on the other."""

_Held = tuple[Accepted, Settle]


class Bests(NamedTuple):
    """What a batch comes to: rows for SQL (period, game, score), boards, and the periods that are over."""

    rows: list[tuple[str, str, Best]]
    groups: list[Group]
    late: set[str]


class Keeping:
    """Takes accepted scores into SQL and onto the boards."""

    def __init__(
        self,
        scores: Scores,
        removals: Removals,
        boards: Boards,
        friends: Friends,
        calendar: Calendar,
        telling: Telling,
    ) -> None:
        self._scores = scores
        self._removals = removals
        self._boards = boards
        self._friends = friends
        self._calendar = calendar
        self._telling = telling
        self._held: list[_Held] = []
        self._gathered = asyncio.Event()

    async def work(self, entry: Entry, settle: Settle) -> None:
        """Take one entry of the queue; it is settled with the batch that it comes into."""
        self._held.append((decode_score(entry.message), settle))
        self._gathered.set()

    async def run(self) -> None:
        """Keep what gathers, for as long as the process lives. Runs as a side task."""
        async with asyncio.TaskGroup() as group:
            for _ in range(BATCHES_AT_ONCE):
                group.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._gathered.wait()
            if len(self._held) < MOST_TOGETHER:
                await asyncio.sleep(GATHER_S)
            batch, self._held = self._held[:MOST_TOGETHER], self._held[MOST_TOGETHER:]
            if not self._held:
                self._gathered.clear()
            if batch:
                await self._keep_together(batch)

    async def keep(self, batch: Sequence[Accepted]) -> None:
        """Keep scores and tell of them. Raises StoreAway: all of it is then to be done again."""
        while True:
            bests = self.bests(batch)
            try:
                await self._scores.keep(batch, bests.rows, bests.late)
                break
            except SecondResults as error:
                log.warning("second results of game sessions do not count", tasks=sorted(error.task_ids))
                batch = [score for score in batch if score.task_id not in error.task_ids]
                if not batch:
                    return
        raised = await self._raise(bests.groups)
        await self._friends.overtake(raised)
        await self._tell(batch, raised)

    def bests(self, batch: Sequence[Accepted]) -> Bests:
        """What is best of a batch, by user, game and period."""
        rows: dict[tuple[str, str, str], Best] = {}
        groups: dict[tuple[str, str], dict[str, Best]] = defaultdict(dict)
        late: set[str] = set()
        now = now_ms()
        for score in batch:
            best = Best(score.user_id, score.score, score.submitted_ms)
            periods = self._calendar.periods(score.submitted_ms)
            late |= {each.name for each in (periods.day, periods.week, periods.month) if each.is_over(now)}
            for period in (ALL, periods.day.name):
                row = period, score.game_type, score.user_id
                rows[row] = _better(rows.get(row), best)
            group = groups[periods.day.name, score.game_type]
            group[score.user_id] = _better(group.get(score.user_id), best)
        return Bests(
            rows=[(period, game_type, best) for (period, game_type, _), best in rows.items()],
            # The newest day last: what is told of a board is then of its newest period.
            groups=[
                Group(
                    game_type,
                    self._calendar.periods(next(iter(bests.values())).reached_ms),
                    # Neighbours are found on the same way through a board.
                    sorted(bests.values(), key=attrgetter("score")),
                )
                for (_, game_type), bests in sorted(groups.items(), key=lambda item: item[0])
            ],
            late=late,
        )

    async def _keep_together(self, batch: Sequence[_Held]) -> None:
        try:
            await self._keep_patiently([score for score, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1](error)
                return
            # One of them cannot be kept: alone, it fails alone.
            log.warning("kept one by one", count=len(batch), cause=str(error))
            for each in batch:
                await self._keep_together([each])
            return
        for _, settle in batch:
            settle(None)

    async def _keep_patiently(self, batch: Sequence[Accepted]) -> None:
        while True:
            try:
                await self.keep(batch)
                return
            except StoreAway as error:
                log.warning("scores wait for a store", count=len(batch), cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)

    async def _raise(self, groups: Sequence[Group]) -> list[Raised]:
        while True:
            try:
                return await self._boards.raise_scores(groups)
            except RemovedLost:
                await self._boards.remember_removed(await self._removals.all())

    async def _tell(self, batch: Sequence[Accepted], raised: Sequence[Raised]) -> None:
        """Tell the users who are there of their scores."""
        present = await self._telling.present({score.user_id for score in batch})
        for score in batch:
            log.debug("kept", trace_id=score.trace, task_id=score.task_id)
        there = [score for score in batch if score.user_id in present]
        updates = await updates_of(self._boards, there, [one for one in raised if one.user_id in present])
        for user_id, events in updates.items():
            self._telling.tell_at(present[user_id], user_id, *events)


def _better(one: Best | None, other: Best) -> Best:
    """The higher score, and of equal ones the earlier."""
    if one is None or (other.score, -other.reached_ms) > (one.score, -one.reached_ms):
        return other
    return one
