"""Past boards: frozen into SQL as they were, and read with the same answers as from Redis."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.messages.ranking import BoardType
from storage.boards import Best, Board, Page, Place, Standing
from storage.past_boards import FrozenDifference, FrozenPlace, NotFrozen
from storage.periods import Period
from storage.scores import Accepted
from storage.servers import now_ms
from storage.tables import frozen_boards, frozen_places
from tests.storage.hall import DAY_MS, Hall, Model, accepted, opened
from workers.ranking.freezing import Freezing

WEEK = "2024W51"


@pytest.fixture
async def hall(valkey_url: str, database_url: str) -> AsyncIterator[Hall]:
    async with opened(valkey_url, database_url) as hall:
        yield hall


@pytest.fixture
async def week(hall: Hall) -> Period:
    return hall.calendar.named(BoardType.WEEKLY, WEEK)


def scores_of(week: Period) -> list[Accepted]:
    """Some of every day of a week, with ties, of two games, and one of the day after."""
    return [
        accepted(number, f"u{number % 8}", 100 + number * 7 % 11, week.starts_ms + number * DAY_MS // 4, game)
        for number, game in enumerate(["suika", "chess"] * 14 + ["suika"])
    ]


async def frozen(hall: Hall, week: Period) -> Model:
    model = Model()
    batch = scores_of(week)
    await hall.keep(*batch)
    for each in batch:
        model.add(each)
    for game_type in ("suika", "chess", None):
        await hall.past.freeze(Board(week, game_type), hall.calendar.days(week))
    return model


async def page(hall: Hall, board: Board, offset: int = 0, limit: int = 100) -> list[Place]:
    return await hall.past.page(Page(board, offset, limit))


async def agree(hall: Hall, board: Board, wanted: list[Place]) -> None:
    for offset in range(len(wanted) + 1):
        assert await page(hall, board, offset, 3) == wanted[offset : offset + 3]
    for index, place in enumerate(wanted):
        found = await hall.past.standing(board, place.user_id)
        assert found == Standing(len(wanted), place.rank, place.score, index)
    assert await hall.past.standing(board, "nobody") == Standing(len(wanted))


async def test_a_frozen_board_is_what_the_days_make_of_it(hall: Hall, week: Period) -> None:
    model = await frozen(hall, week)
    for game_type in ("suika", "chess", None):
        await agree(hall, Board(week, game_type), model.places(week, game_type))


async def test_who_is_removed_is_on_no_past_board_until_taken_back(hall: Hall, week: Period) -> None:
    model = await frozen(hall, week)
    board = Board(week)
    whole = model.places(week)
    for gone in ({whole[0].user_id}, {whole[3].user_id, whole[4].user_id}, {whole[-1].user_id}):
        for user_id in gone:
            assert await hall.removals.add(user_id, "kim", "cheated")
            assert not await hall.removals.add(user_id, "kim", "cheated")
        await agree(hall, board, model.places(week, without=gone))
        for user_id in gone:
            assert (await hall.past.standing(board, user_id)).rank is None
            assert await hall.removals.take_back(user_id)
            assert not await hall.removals.take_back(user_id)
    await agree(hall, board, whole)


async def test_what_is_not_frozen_is_said_to_be_so(hall: Hall, week: Period) -> None:
    with pytest.raises(NotFrozen):
        await page(hall, Board(week))
    with pytest.raises(NotFrozen):
        await hall.past.standing(Board(week), "ada")
    assert not await hall.past.has_scores(hall.calendar.days(week))
    await hall.keep(accepted(1, "ada", 5, week.starts_ms))
    assert await hall.past.has_scores(hall.calendar.days(week))


async def test_every_period_that_is_over_is_frozen_once_and_again_when_a_score_comes_late(
    hall: Hall, week: Period
) -> None:
    await hall.keep(*scores_of(week), accepted(99, "today", 5, now_ms()))
    freezing = Freezing(hall.past, hall.calendar)
    seen: list[tuple[str, str | None, int]] = []

    def progress(board: Board, players: int) -> None:
        seen.append((board.period.name, board.game_type, players))

    await freezing.freeze_all(week.ends_ms or 0, progress)
    assert {name for name, _, _ in seen} == {*hall.calendar.days(week), WEEK}
    assert (WEEK, None, 8) in seen
    assert await freezing.freeze_all(week.ends_ms or 0, progress) == 0

    late = accepted(100, "late", 999, week.starts_ms + 5)
    day = hall.calendar.days(week)[0]
    await hall.scores.keep([late], [(day, "suika", Best("late", 999, late.submitted_ms))], {WEEK, day})
    assert await hall.past.frozen() == {*hall.calendar.days(week)} - {day}
    assert await freezing.freeze_all(week.ends_ms or 0, progress) == 2
    assert (await page(hall, Board(week)))[0] == Place(1, "late", 999)


async def test_freezing_again_replaces_what_was_frozen(hall: Hall, week: Period) -> None:
    await frozen(hall, week)
    days = hall.calendar.days(week)
    assert await hall.past.freeze(Board(week), days) == 8
    assert await hall.past.freeze(Board(week), days[:1]) == 4
    assert len(await page(hall, Board(week))) == 4


@pytest.fixture
def freezing(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> Freezing:
    monkeypatch.setattr("workers.ranking.freezing.SECOND_LOOK_S", 0.05)
    return Freezing(hall.past, hall.calendar)


async def test_what_differs_on_a_frozen_board_is_named_and_mended(
    hall: Hall, week: Period, freezing: Freezing
) -> None:
    model = await frozen(hall, week)
    looked: list[tuple[int, int]] = []
    assert await freezing.verify(lambda done, total: looked.append((done, total))) == []
    assert looked == [(1, 1)]
    board, chess = Board(week), Board(week, "chess")
    (first, second, *_), players = await page(hall, board), len(model.places(week))
    alone = (await page(hall, chess))[0]

    async def spoil(connection: AsyncConnection) -> None:
        of_all = frozen_places.c.game_type == ""
        await connection.execute(delete(frozen_places).where(of_all, frozen_places.c.place == 2))
        await connection.execute(
            update(frozen_places).where(of_all, frozen_places.c.place == 1).values(score=5)
        )
        row = {"place": 900, "rank": 900, "user_id": "mallory", "score": 1}
        await connection.execute(frozen_places.insert().values(period=WEEK, game_type="", **row))
        of_chess = frozen_places.c.game_type == "chess"
        await connection.execute(delete(frozen_places).where(of_chess, frozen_places.c.place == 1))
        await connection.execute(
            update(frozen_boards).where(frozen_boards.c.game_type == "suika").values(players=900)
        )

    await hall.database.transaction(spoil)
    found = await freezing.verify(lambda done, total: None)
    wanted = FrozenPlace(1, 1, first.score)
    assert FrozenDifference(board, first.user_id, FrozenPlace(1, 1, 5), wanted) in found
    assert FrozenDifference(board, second.user_id, None, FrozenPlace(2, second.rank, second.score)) in found
    assert FrozenDifference(board, "mallory", FrozenPlace(900, 900, 1), None) in found
    assert FrozenDifference(Board(week, "suika"), None, 900, len(model.places(week, "suika"))) in found
    assert FrozenDifference(chess, alone.user_id, None, FrozenPlace(1, 1, alone.score)) in found
    assert await freezing.repair(found) == len(found)
    assert await freezing.verify(lambda done, total: None) == []
    for game_type in ("suika", "chess", None):
        await agree(hall, Board(week, game_type), model.places(week, game_type))
    assert len(await page(hall, board)) == players


async def test_a_board_that_is_frozen_no_more_has_all_its_players_missing(
    hall: Hall, week: Period, freezing: Freezing
) -> None:
    model = await frozen(hall, week)
    await hall.database.transaction(
        lambda connection: connection.execute(
            delete(frozen_boards).where(frozen_boards.c.game_type == "chess")
        )
    )
    (found,) = await freezing.verify(lambda done, total: None)
    assert found == FrozenDifference(Board(week, "chess"), None, 0, len(model.places(week, "chess")))
    assert await freezing.repair([found]) == 1
    await agree(hall, Board(week, "chess"), model.places(week, "chess"))


async def test_what_awaits_its_freezing_after_a_late_score_is_no_difference(
    hall: Hall, week: Period, freezing: Freezing
) -> None:
    await frozen(hall, week)
    late = accepted(100, "late", 999, week.starts_ms + 5)
    day = hall.calendar.days(week)[0]
    await hall.scores.keep([late], [(day, "suika", Best("late", 999, late.submitted_ms))], {WEEK, day})
    assert await freezing.verify(lambda done, total: None) == []
