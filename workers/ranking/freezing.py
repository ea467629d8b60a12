"""Freezing: boards of periods that are over are written into SQL, whichever worker comes first, and can be
held against the scores of their days."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog

from protocol.messages.ranking import BoardType
from storage.boards import Board
from storage.errors import StoreAway
from storage.past_boards import FrozenDifference, PastBoards
from storage.periods import Calendar, Period
from storage.servers import now_ms

log = structlog.get_logger(__name__)

FREEZING_LIMIT_S = 600.0
"""How long it may take to write down one board."""

SECOND_LOOK_S = 2.0
"""A board that is being frozen again has been by then."""

LOOK_S = 60.0
GRACE_S = 600.0
"""After a period's end, so that the scores of its last minutes are in SQL."""

Progress = Callable[[Board, int], None]
"""Called with each board that was frozen and how many players it has."""


class Freezing:
    """Finds the periods that are over and not frozen, and freezes their boards."""

    def __init__(self, past: PastBoards, calendar: Calendar) -> None:
        self._past = past
        self._calendar = calendar

    async def run(self) -> None:
        """Freeze what is to be frozen, for as long as the process lives. Runs as a side task."""
        while True:
            try:
                await self.freeze_all(now_ms() - int(GRACE_S * 1000), _log)
            except StoreAway as error:
                log.warning("cannot freeze boards", cause=str(error))
            await asyncio.sleep(LOOK_S)

    async def freeze_all(self, at_ms: int, progress: Progress) -> int:
        """Freeze every period that is over at `at_ms` and not frozen; how many periods those were."""
        periods = await self._due(at_ms)
        for period in periods:
            await self.freeze(period, progress)
        return len(periods)

    async def freeze(self, period: Period, progress: Progress) -> None:
        """Freeze a period's boards, again where they are frozen.

        That of all games comes last: where it is there, all are.
        """
        days = self._calendar.days(period)
        for game_type in [*await self._past.game_types(days), None]:
            board = Board(period, game_type)
            players = await self._past.freeze(board, days)
            if players is not None:
                progress(board, players)

    async def verify(self, progress: Callable[[int, int], None]) -> list[FrozenDifference]:
        """Where frozen boards and the scores of their days differ, and still do at a second look.

        `progress` is called with how many periods have been looked at, and of how many.
        """
        found: list[FrozenDifference] = []
        names = sorted(await self._past.frozen())
        for number, name in enumerate(names):
            found += await self._compare([name])
            progress(number + 1, len(names))
        if not found:
            return []
        await asyncio.sleep(SECOND_LOOK_S)
        differing = {each.board.period.name for each in found} & await self._past.frozen()
        again = set(await self._compare(differing))
        return [each for each in found if each in again]

    async def repair(self, differences: Sequence[FrozenDifference]) -> int:
        """Freeze boards that differ again; how many differences that mends."""
        for board in {each.board for each in differences}:
            await self._past.freeze(board, self._calendar.days(board.period))
        return len(differences)

    async def _compare(self, names: Iterable[str]) -> list[FrozenDifference]:
        found = []
        for name in names:
            period = self._calendar.ending(name)
            days = self._calendar.days(period)
            game_types = {*await self._past.game_types(days), *await self._past.frozen_game_types(name)}
            for game_type in [*sorted(game_types), None]:
                found += await self._past.differences(Board(period, game_type), days)
        return found

    async def _due(self, at_ms: int) -> list[Period]:
        frozen = await self._past.frozen()
        found: dict[str, Period] = {}
        for name in await self._past.days():
            try:
                day = self._calendar.named(BoardType.DAILY, name)
            except ValueError:
                continue
            periods = self._calendar.periods(day.starts_ms)
            for period in (periods.day, periods.week, periods.month):
                if period.is_over(at_ms) and period.name not in frozen:
                    found[period.name] = period
        return list(found.values())


def _log(board: Board, players: int) -> None:
    log.info("frozen", period=board.period.name, game_type=board.game_type, players=players)
