"""The truth about boards: making them again from SQL, seeing whether they agree, removing who cheated.

All of it goes on while scores come in: boards are only ever raised, and what differs is looked at twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from operator import attrgetter
from typing import NamedTuple

from protocol.messages.ranking import BoardType
from storage.boards import MOST_FILLED, Best, Board, Boards
from storage.errors import StoreAway
from storage.past_boards import PastBoards
from storage.periods import ALL, ALL_TIME, Calendar, Period
from storage.placing import placed
from storage.removals import Removals
from storage.scores import Scores
from storage.servers import now_ms

SECOND_LOOK_S = 2.0
"""What is under way from SQL to a board has arrived by then."""

FILL_ATTEMPTS = 10
AWAY_PAUSE_S = 0.5
"""A Redis that is being filled may keep one waiting for too long now and then; what was written once may be
written again."""

MOST_SORTED = 50_000
"""Rows that a rebuild puts in order: neighbours cost Redis a third of what others do. They are some 10 MB."""

SCANNED = 1000

Progress = Callable[[int, int], None]
"""Called with how many rows have been dealt with, and of how many."""


class Difference(NamedTuple):
    """A user's number on a board and what it should be; None is none."""

    board: Board
    user_id: str
    seen: float | None
    wanted: float | None


class Source(NamedTuple):
    """Rows of `best_scores`, and the periods whose boards they count for."""

    name: str
    game_type: str
    periods: Sequence[Period]


class Truth:
    """Holds boards against SQL. Raises StoreAway."""

    def __init__(
        self,
        boards: Boards,
        scores: Scores,
        past: PastBoards,
        removals: Removals,
        calendar: Calendar,
        keep_past_s: float,
    ) -> None:
        self._boards = boards
        self._scores = scores
        self._past = past
        self._removals = removals
        self._calendar = calendar
        self._keep_past_ms = int(keep_past_s * 1000)

    async def rebuild(self, progress: Progress) -> int:
        """Write every score that SQL has to the boards that Redis should have; how many rows that took."""
        await self._agree_on_removed()
        sources = await self._sources()
        total = await self._scores.count({(source.name, source.game_type) for source in sources})
        done = 0
        filling: asyncio.Task[None] | None = None
        try:
            for source in sources:
                async for chunk in _ahead(_by_score(self._scores.best(source.name, source.game_type))):
                    if filling is not None:
                        await filling
                    filling = asyncio.create_task(self._fill(source, chunk))
                    done += len(chunk)
                    progress(done, max(done, total))
        finally:
            if filling is not None:
                await filling
        return done

    async def verify(self, progress: Progress) -> list[Difference]:
        """Where boards and SQL differ, and still do at a second look."""
        found: list[Difference] = []
        periods = await self._periods()
        for number, period in enumerate(periods):
            found += await self._compare(period)
            progress(number + 1, len(periods))
        if not found:
            return []
        await asyncio.sleep(SECOND_LOOK_S)
        return [each for each in await self._again(found) if each.seen != each.wanted]

    async def repair(self, differences: Sequence[Difference]) -> int:
        """Set what differs to what it should be, where it is still what was seen; how many were set."""
        repaired = 0
        for board in {each.board for each in differences}:
            wrong = [(each.user_id, each.seen, each.wanted) for each in differences if each.board == board]
            for start in range(0, len(wrong), MOST_FILLED):
                repaired += await self._boards.correct(board, wrong[start : start + MOST_FILLED])
            await self._boards.note_changed([board])
        return repaired

    async def remove(self, user_id: str, operator: str, reason: str) -> bool:
        """Take a user off every board; False for one who was removed already."""
        is_new = await self._removals.add(user_id, operator, reason)
        await self._agree_on_removed()
        boards = await self._all_boards()
        await self._boards.remove(user_id, boards)
        await self._boards.note_changed(boards)
        return is_new

    async def restore(self, user_id: str) -> bool:
        """Put a removed user back with all that they reached; False for one who is not removed."""
        was_removed = await self._removals.take_back(user_id)
        await self._agree_on_removed()
        for source in await self._sources():
            best = await self._scores.best_of({source.name}, {source.game_type}, {user_id})
            if best:
                await self._fill(source, best)
        return was_removed

    async def _fill(self, source: Source, rows: Sequence[Best]) -> None:
        for start in range(0, len(rows), MOST_FILLED):
            some = rows[start : start + MOST_FILLED]
            for attempt in range(1, FILL_ATTEMPTS + 1):
                try:
                    await asyncio.gather(
                        *(self._boards.fill(each, (None, source.game_type), some) for each in source.periods)
                    )
                    break
                except StoreAway:
                    if attempt == FILL_ATTEMPTS:
                        raise
                await asyncio.sleep(AWAY_PAUSE_S)
        await self._boards.note_changed(map(Board, source.periods))

    async def _agree_on_removed(self) -> None:
        """Have Redis know exactly whom SQL has as removed."""
        removed = await self._removals.all()
        await self._boards.remember_removed(removed)
        for user_id in await self._boards.removed() - removed:
            await self._boards.restore(user_id)

    async def _periods(self) -> list[Period]:
        """The periods whose boards Redis should have: all of time, and those that ended not long ago."""
        found = {ALL_TIME.name: ALL_TIME}
        now = now_ms()
        for name in await self._past.days():
            day = self._calendar.named(BoardType.DAILY, name)
            periods = self._calendar.periods(day.starts_ms)
            for period in (periods.day, periods.week, periods.month):
                if not period.is_over(now - self._keep_past_ms):
                    found[period.name] = period
        return list(found.values())

    async def _sources(self) -> list[Source]:
        days: dict[str, list[Period]] = {}
        for period in await self._periods():
            for name in self._calendar.days(period) if period.ends_ms is not None else [ALL]:
                days.setdefault(name, []).append(period)
        game_types = await self._scores.game_types()
        return [
            Source(name, game_type, periods) for name, periods in days.items() for game_type in game_types
        ]

    async def _all_boards(self) -> list[Board]:
        game_types = [None, *await self._scores.game_types()]
        return [Board(period, game_type) for period in await self._periods() for game_type in game_types]

    def _names(self, period: Period) -> Set[str]:
        return {ALL} if period.ends_ms is None else set(self._calendar.days(period))

    async def _compare(self, period: Period) -> list[Difference]:
        """Hold all boards of a period against SQL, in memory: some 200 bytes a player and board."""
        removed = await self._removals.all()
        game_types = await self._scores.game_types()
        wanted: dict[str | None, dict[str, float]] = {game_type: {} for game_type in (None, *game_types)}
        for game_type in game_types:
            for name in self._names(period):
                async for chunk in self._scores.best(name, game_type):
                    for user_id, score, reached_ms in chunk:
                        if user_id not in removed:
                            number = placed(score, reached_ms, period)
                            for numbers in (wanted[None], wanted[game_type]):
                                numbers[user_id] = max(number, numbers.get(user_id, number))
        found = []
        for which, numbers in wanted.items():
            found += await self._compare_board(Board(period, which), numbers)
        return found

    async def _compare_board(self, board: Board, wanted: Mapping[str, float]) -> list[Difference]:
        missing, found = dict(wanted), []
        cursor = 0
        while True:
            cursor, rows = await self._boards.scan(board, cursor, SCANNED)
            for user_id, seen in rows.items():
                missing.pop(user_id, None)
                if wanted.get(user_id) != seen:
                    found.append(Difference(board, user_id, seen, wanted.get(user_id)))
            if not cursor:
                break
        return found + [Difference(board, user_id, None, number) for user_id, number in missing.items()]

    async def _again(self, differences: Sequence[Difference]) -> list[Difference]:
        """The same users on the same boards, as they are now."""
        removed = await self._removals.all()
        every = set(await self._scores.game_types())
        found = []
        for board in {each.board for each in differences}:
            user_ids = sorted({each.user_id for each in differences if each.board == board})
            game_types = every if board.game_type is None else {board.game_type}
            for start in range(0, len(user_ids), SCANNED):
                some = user_ids[start : start + SCANNED]
                wanted: dict[str, float] = {}
                for best in await self._scores.best_of(self._names(board.period), game_types, set(some)):
                    number = placed(best.score, best.reached_ms, board.period)
                    if best.user_id not in removed:
                        wanted[best.user_id] = max(number, wanted.get(best.user_id, number))
                for user_id, seen in zip(some, await self._boards.numbers(board, some), strict=True):
                    found.append(Difference(board, user_id, seen, wanted.get(user_id)))
        return found


async def _by_score(chunks: AsyncIterator[list[Best]]) -> AsyncIterator[list[Best]]:
    """The same rows, MOST_SORTED at a time and in the order of their scores."""
    some: list[Best] = []
    async for chunk in chunks:
        some += chunk
        if len(some) >= MOST_SORTED:
            yield sorted(some, key=attrgetter("score"))
            some = []
    yield sorted(some, key=attrgetter("score"))


async def _ahead(chunks: AsyncIterator[list[Best]]) -> AsyncIterator[list[Best]]:
    """The same chunks, each next one being read while the last is worked on."""
    reading = asyncio.ensure_future(anext(chunks, None))
    try:
        while (chunk := await reading) is not None:
            reading = asyncio.ensure_future(anext(chunks, None))
            yield chunk
    finally:
        reading.cancel()
