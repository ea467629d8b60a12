"""The noun "past board": a board of a period that is over, frozen into SQL place by place.

Redis forgets a board some time after its period; from then on it is read here. Who is removed stays in the
rows, and is left out when they are read: so a removal holds for the past at once, and can be taken back.
"""

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.boards import Board, Page, Place, Standing
from storage.database import Database
from storage.servers import now_ms
from storage.tables import best_scores, frozen_boards, frozen_places, ranking_removals

ALL_GAMES = ""
"""How a row says that its board is that of all games."""


class NotFrozen(Exception):
    """The board is not in SQL (yet)."""


class FrozenPlace(NamedTuple):
    """A row of a frozen board: `place` counts from 1, no two alike; equal scores share a rank."""

    place: int
    rank: int
    score: int


class FrozenDifference(NamedTuple):
    """What a frozen board has of a user, and what their days' best scores come to; None is nothing.

    Without a user it is how many players the board says it has.
    """

    board: Board
    user_id: str | None
    seen: FrozenPlace | int | None
    wanted: FrozenPlace | int | None


class PastBoards:
    """Frozen boards. Raises StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def days(self) -> list[str]:
        """The days of which there are scores."""

        async def query(connection: AsyncConnection) -> list[str]:
            found = select(best_scores.c.period).distinct()
            return sorted(name for name in await connection.scalars(found) if name.isdigit())

        return await self._database.read(query)

    async def game_types(self, days: Sequence[str]) -> list[str]:
        """The games of which there are scores on any of these days."""

        async def query(connection: AsyncConnection) -> list[str]:
            found = select(best_scores.c.game_type).where(best_scores.c.period.in_(days)).distinct()
            return sorted(await connection.scalars(found))

        return await self._database.read(query)

    async def has_scores(self, days: Sequence[str]) -> bool:
        """Whether anybody has a score on any of these days."""

        async def query(connection: AsyncConnection) -> bool:
            found = select(literal(1)).select_from(best_scores).where(best_scores.c.period.in_(days)).limit(1)
            return await connection.scalar(found) is not None

        return await self._database.read(query)

    async def frozen(self) -> Set[str]:
        """The periods that are frozen whole: the board of all games is frozen last."""

        async def query(connection: AsyncConnection) -> Set[str]:
            found = select(frozen_boards.c.period).where(frozen_boards.c.game_type == ALL_GAMES)
            return set(await connection.scalars(found))

        return await self._database.read(query)

    async def frozen_game_types(self, period: str) -> list[str]:
        """The games of which a period has a frozen board."""

        async def query(connection: AsyncConnection) -> list[str]:
            found = select(frozen_boards.c.game_type).where(
                frozen_boards.c.period == period, frozen_boards.c.game_type != ALL_GAMES
            )
            return sorted(await connection.scalars(found))

        return await self._database.read(query)

    async def differences(self, board: Board, days: Sequence[str]) -> list[FrozenDifference]:
        """Where a frozen board is not what its days' best scores come to. One that is not frozen is empty."""

        async def query(connection: AsyncConnection) -> list[FrozenDifference]:
            try:
                players = await _players(connection, board)
            except NotFrozen:
                players = 0
            wanted = _places(board, days).subquery()
            count = await connection.scalar(select(func.count()).select_from(wanted)) or 0
            found = [] if players == count else [FrozenDifference(board, None, players, count)]
            for statement in _differing(board, wanted):
                for user_id, *row in await connection.execute(statement):
                    found.append(FrozenDifference(board, user_id, _place(row[:3]), _place(row[3:])))
            return found

        return await self._database.read(query)

    async def freeze(self, board: Board, days: Sequence[str]) -> int | None:
        """Write a board down, made of its days' best scores; how many players it has.

        What was frozen of it before is replaced. None where somebody else freezes it at the same time.
        """
        period, game_type = board.period.name, board.game_type or ALL_GAMES
        key = {"period": period, "game_type": game_type}

        async def work(connection: AsyncConnection) -> int:
            for table in (frozen_boards, frozen_places):
                await connection.execute(
                    delete(table).where(table.c.period == period, table.c.game_type == game_type)
                )
            await connection.execute(insert(frozen_boards).values(**key, players=0, frozen_at=now_ms()))
            columns = ("period", "game_type", "place", "rank", "user_id", "score")
            await connection.execute(insert(frozen_places).from_select(columns, _places(board, days)))
            players = await connection.scalar(
                select(func.count())
                .select_from(frozen_places)
                .where(frozen_places.c.period == period, frozen_places.c.game_type == game_type)
            )
            await connection.execute(
                update(frozen_boards)
                .where(frozen_boards.c.period == period, frozen_boards.c.game_type == game_type)
                .values(players=players)
            )
            return int(players or 0)

        try:
            return await self._database.transaction(work)
        except IntegrityError:
            return None

    async def standing(self, board: Board, user_id: str) -> Standing:
        """Where a user stood. Raises NotFrozen."""

        async def query(connection: AsyncConnection) -> Standing:
            gone = await _removed(connection, board)
            players = await _players(connection, board) - len(gone)
            found = select(frozen_places.c.place, frozen_places.c.rank, frozen_places.c.score).where(
                _is(board), frozen_places.c.user_id == user_id
            )
            row = (await connection.execute(found)).one_or_none()
            if row is None or any(place == row.place for place, _ in gone):
                return Standing(players)
            place = row.place - 1 - sum(other < row.place for other, _ in gone)
            return Standing(players, row.rank - _above(gone, row.score), row.score, place)

        return await self._database.read(query)

    async def page(self, page: Page) -> list[Place]:
        """A part of a board, best first. Raises NotFrozen."""

        async def query(connection: AsyncConnection) -> list[Place]:
            await _players(connection, page.board)
            gone = await _removed(connection, page.board)
            first = page.offset + 1
            for place, _ in gone:
                first += place <= first
            found = (
                select(
                    frozen_places.c.place,
                    frozen_places.c.rank,
                    frozen_places.c.user_id,
                    frozen_places.c.score,
                )
                .where(_is(page.board), frozen_places.c.place >= first)
                .order_by(frozen_places.c.place)
                .limit(page.limit + len(gone))
            )
            removed = {place for place, _ in gone}
            rows = [row for row in await connection.execute(found) if row.place not in removed]
            return [
                Place(row.rank - _above(gone, row.score), row.user_id, row.score)
                for row in rows[: page.limit]
            ]

        return await self._database.read(query)


def _is(board: Board) -> Any:
    return and_(
        frozen_places.c.period == board.period.name,
        frozen_places.c.game_type == (board.game_type or ALL_GAMES),
    )


def _above(gone: Sequence[tuple[int, int]], score: int) -> int:
    """How many of the removed had a better score."""
    return sum(other > score for _, other in gone)


async def _players(connection: AsyncConnection, board: Board) -> int:
    found = select(frozen_boards.c.players).where(
        frozen_boards.c.period == board.period.name,
        frozen_boards.c.game_type == (board.game_type or ALL_GAMES),
    )
    players = await connection.scalar(found)
    if players is None:
        raise NotFrozen
    return int(players)


async def _removed(connection: AsyncConnection, board: Board) -> list[tuple[int, int]]:
    """The places and scores of the removed on a board, best first."""
    found = (
        select(frozen_places.c.place, frozen_places.c.score)
        .join(ranking_removals, ranking_removals.c.user_id == frozen_places.c.user_id)
        .where(_is(board))
        .order_by(frozen_places.c.place)
    )
    return [(place, score) for place, score in await connection.execute(found)]


def _places(board: Board, days: Sequence[str]) -> Select[Any]:
    """The rows of a board: each user's best of the days, in the order in which Redis shows them."""
    which: list[ColumnElement[bool]] = [best_scores.c.period.in_(days)]
    if board.game_type is not None:
        which.append(best_scores.c.game_type == board.game_type)
    best = (best_scores.c.score.desc(), best_scores.c.reached_at)
    each = (
        select(
            best_scores.c.user_id,
            best_scores.c.score,
            best_scores.c.reached_at,
            func.row_number().over(partition_by=best_scores.c.user_id, order_by=best).label("n"),
        )
        .where(*which)
        .subquery()
    )
    order = (each.c.score.desc(), each.c.reached_at, each.c.user_id.desc())
    return select(
        literal(board.period.name).label("period"),
        literal(board.game_type or ALL_GAMES).label("game_type"),
        func.row_number().over(order_by=order).label("place"),
        func.rank().over(order_by=each.c.score.desc()).label("rank"),
        each.c.user_id,
        each.c.score,
    ).where(each.c.n == 1)


def _differing(board: Board, wanted: Subquery) -> Sequence[Select[Any]]:
    """User id, frozen place, rank and score, wanted place, rank and score: of those who are not there or
    otherwise, then of those who should not be there."""
    seen = select(frozen_places).where(_is(board)).subquery()
    columns = (seen.c.place, seen.c.rank, seen.c.score, wanted.c.place, wanted.c.rank, wanted.c.score)
    same = seen.c.user_id == wanted.c.user_id
    otherwise = or_(
        seen.c.place.is_(None),
        seen.c.place != wanted.c.place,
        seen.c.rank != wanted.c.rank,
        seen.c.score != wanted.c.score,
    )
    return (
        select(wanted.c.user_id, *columns).select_from(wanted.outerjoin(seen, same)).where(otherwise),
        select(seen.c.user_id, *columns)
        .select_from(seen.outerjoin(wanted, same))
        .where(wanted.c.user_id.is_(None)),
    )


def _place(row: Sequence[int | None]) -> FrozenPlace | None:
    place, rank, score = row
    return None if place is None or rank is None or score is None else FrozenPlace(place, rank, score)
