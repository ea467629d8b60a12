"""What the tests of boards are made of: stores, and the board as it should be, in plain Python."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.boards import Best, Board, Boards, Group, Page, Place
from storage.connections import connect_wire
from storage.database import Database
from storage.friends import Friends
from storage.migrations import migrate
from storage.past_boards import PastBoards
from storage.periods import ALL, Calendar, Period
from storage.removals import Removals
from storage.scores import Accepted, Scores
from storage.tables import scores as scores_table
from storage.wire import Wire
from tests.storage.people import register

KEEP_PAST_S = 172_800.0
DAY_MS = 86_400_000
MOST_FRIENDS = 5


@dataclass
class Hall:
    """The stores of one system."""

    wire: Wire
    database: Database
    calendar: Calendar = field(default_factory=lambda: Calendar("UTC"))

    def __post_init__(self) -> None:
        self.boards = Boards(self.wire, KEEP_PAST_S)
        self.scores = Scores(self.database)
        self.past = PastBoards(self.database)
        self.removals = Removals(self.database)
        self.friends = Friends(self.database, self.wire, MOST_FRIENDS)

    async def register(self, *user_ids: str) -> None:
        """Make accounts."""
        await register(self.database, *user_ids)

    async def raise_scores(self, *scores: tuple[str, int, int], game_type: str = "suika") -> None:
        """Write users' scores, reached at ms since the epoch, to the boards, one after the other."""
        for user_id, score, at_ms in scores:
            group = Group(game_type, self.calendar.periods(at_ms), [Best(user_id, score, at_ms)])
            await self.boards.raise_scores([group])

    async def keep(self, *batch: Accepted) -> None:
        """Keep scores in SQL, with their bests."""
        bests = [
            (period, score.game_type, Best(score.user_id, score.score, score.submitted_ms))
            for score in batch
            for period in (ALL, self.calendar.periods(score.submitted_ms).day.name)
        ]
        await self.scores.keep(batch, bests, set())

    async def places(self, board: Board, offset: int = 0, limit: int = 1000) -> list[Place]:
        """A part of a board as Redis has it."""
        page = Page(board, offset, limit)
        return (await self.boards.pages({page}))[page]

    async def kept(self) -> int:
        """How many scores SQL has."""

        async def query(connection: AsyncConnection) -> int:
            return await connection.scalar(select(func.count()).select_from(scores_table)) or 0

        return await self.database.read(query)


@asynccontextmanager
async def opened(redis_url: str, database_url: str) -> AsyncIterator[Hall]:
    """A hall on migrated stores, where Redis knows that nobody is removed."""
    await migrate(database_url)
    wire, database = connect_wire(redis_url), Database(database_url)
    hall = Hall(wire, database)
    await hall.boards.remember_removed(set())
    yield hall
    await wire.aclose()
    await database.close()


def accepted(
    number: int, user_id: str, score: int, at_ms: int, game_type: str = "suika", session: str | None = None
) -> Accepted:
    """A score, by a number of its own."""
    return Accepted(f"task_{at_ms}_{user_id}_{number}", user_id, score, game_type, "easy", at_ms, session)


class Model:
    """What boards should be: every user's best and when it was reached."""

    def __init__(self) -> None:
        self._all: list[Accepted] = []

    def add(self, score: Accepted) -> None:
        """One more score; the same again changes nothing."""
        if score not in self._all:
            self._all.append(score)

    def __len__(self) -> int:
        """How many scores there are."""
        return len(self._all)

    def places(
        self, period: Period, game_type: str | None = None, without: Iterable[str] = ()
    ) -> list[Place]:
        """The board, best first."""
        best: dict[str, tuple[int, int]] = {}
        for each in self._all:
            ends = period.ends_ms or each.submitted_ms + 1
            if each.user_id in without or not period.starts_ms <= each.submitted_ms < ends:
                continue
            if game_type in (None, each.game_type):
                this = each.score, -each.submitted_ms
                best[each.user_id] = max(best.get(each.user_id, this), this)
        ordered = sorted(
            ((score, reached, user_id) for user_id, (score, reached) in best.items()), reverse=True
        )
        return [
            Place(1 + sum(other > score for other, _, _ in ordered), user_id, score)
            for score, _, user_id in ordered
        ]
