"""Spreading the word: of boards whose top has changed to their subscribers, of overtaken friends to those
overtaken.

Any number of ranking workers ask; the Functions see to it that of all of them one tells, and not too often
(docs/decisions/0031).
"""

import asyncio

import structlog

from protocol.messages.ranking import MOST_RANKS, BoardType, FriendOvertook, RankingUpdate
from storage.boards import Board, Boards, Page
from storage.errors import StoreAway
from storage.friends import Friends
from storage.periods import Calendar
from workers.ranking.pages import Pages
from workers.telling import Telling

log = structlog.get_logger(__name__)

LEAST_S = 1.0
"""Between two updates of one board."""

LOOK_S = 0.25
"""Between two looks for changed boards that nobody was woken for: whoever was to tell may have died."""

OVERTAKEN_LOOK_S = 0.5
OVERTAKEN_GAP_S = 60.0
"""Between two of `FRIEND_OVERTOOK` for one player."""

OVERTAKEN_MOST = 500
AWAY_PAUSE_S = 1.0


def topic(board_type: BoardType) -> str:
    """What the subscribers of a board of all games have joined."""
    return f"ranking:{board_type.value}"


class Spreading:
    """Tells of boards and of friends."""

    def __init__(
        self, boards: Boards, friends: Friends, pages: Pages, calendar: Calendar, telling: Telling
    ) -> None:
        self._boards = boards
        self._friends = friends
        self._pages = pages
        self._calendar = calendar
        self._telling = telling

    async def run(self) -> None:
        """Tell of changed boards for as long as the process lives. Runs as a side task."""
        while True:
            try:
                boards, due_s = await self._boards.take_changed(LEAST_S)
                await asyncio.gather(*(self._broadcast(*board) for board in boards))
                await self._boards.until_changed(LOOK_S if due_s is None else min(due_s, LOOK_S))
            except StoreAway as error:
                log.warning("cannot tell of boards", cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)

    async def run_overtaken(self) -> None:
        """Tell whom friends have passed for as long as the process lives. Runs as a side task."""
        while True:
            try:
                await self._tell_overtaken()
                await asyncio.sleep(OVERTAKEN_LOOK_S)
            except StoreAway as error:
                log.warning("cannot tell of friends", cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)

    async def _broadcast(self, board_type: BoardType, name: str) -> None:
        board = Board(self._calendar.named(board_type, name))
        rankings = await self._pages.get(Page(board, 0, MOST_RANKS))
        self._telling.broadcast(
            topic(board_type), RankingUpdate(type=board_type, period=name, rankings=rankings)
        )

    async def _tell_overtaken(self) -> None:
        taken = await self._friends.take_overtaken(OVERTAKEN_MOST, OVERTAKEN_GAP_S)
        await self._telling.tell_all(
            [
                (each.user_id, FriendOvertook(friend_id=each.friend_id, score=each.score, rank=each.rank))
                for each in taken
            ]
        )
