"""The truth about boards: made again, compared, corrected, and without those who are removed."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from protocol.messages.ranking import BoardType
from storage.boards import Best, Board, Place
from storage.errors import StoreAway
from storage.periods import ALL_TIME, Period
from storage.scores import Accepted
from storage.servers import now_ms
from tests.storage.hall import DAY_MS, KEEP_PAST_S, Hall, Model, accepted
from tests.workers.ranking.conftest import keeping_in
from workers.ranking.truth import Truth

TOTAL = Board(ALL_TIME)


@pytest.fixture
def truth(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> Truth:
    monkeypatch.setattr("workers.ranking.truth.SECOND_LOOK_S", 0.05)
    return Truth(hall.boards, hall.scores, hall.past, hall.removals, hall.calendar, KEEP_PAST_S)


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


async def played(hall: Hall, count: int = 60) -> Model:
    """Scores of two games, now and yesterday and long ago, with ties."""
    model, now = Model(), now_ms()
    batch: list[Accepted] = []
    for number in range(count):
        at_ms = now - number - DAY_MS * (0, 0, 1, 400)[number % 4]
        game_type = ("suika", "chess")[number % 3 == 0]
        batch.append(accepted(number, f"u{number % 13}", number * 7 % 10, at_ms, game_type))
        model.add(batch[-1])
    await keeping_in(hall).keep(batch)
    return model


async def agree(hall: Hall, model: Model, without: tuple[str, ...] = ()) -> None:
    now = now_ms()
    for at_ms in (now, now - DAY_MS):
        for board_type in BoardType:
            for game_type in (None, "suika", "chess"):
                board = Board(hall.calendar.periods(at_ms)[board_type], game_type)
                assert await hall.places(board) == model.places(board.period, game_type, without)


async def test_lost_boards_are_made_again_as_they_were(hall: Hall, truth: Truth) -> None:
    model = await played(hall)
    await agree(hall, model)
    await hall.wire.execute_command("FLUSHALL")
    assert await truth.rebuild(quiet) > 0
    await agree(hall, model)
    assert await truth.verify(quiet) == []
    assert await truth.rebuild(quiet) > 0
    await agree(hall, model)


async def test_a_redis_that_keeps_one_waiting_is_filled_nevertheless(
    hall: Hall, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await played(hall)
    await hall.wire.execute_command("FLUSHALL")
    monkeypatch.setattr("workers.ranking.truth.AWAY_PAUSE_S", 0.01)
    fill, asked = hall.boards.fill, set()

    async def busy(period: Period, game_types: Sequence[str | None], scores: Sequence[Best]) -> None:
        await fill(period, game_types, scores)
        if (period, *game_types) not in asked:
            asked.add((period, *game_types))
            raise StoreAway("no answer in time")

    monkeypatch.setattr(hall.boards, "fill", busy)
    assert await truth.rebuild(quiet) > 0
    monkeypatch.undo()
    await agree(hall, model)

    async def away(*_: Any) -> None:
        raise StoreAway("away")

    monkeypatch.setattr("workers.ranking.truth.AWAY_PAUSE_S", 0.01)
    monkeypatch.setattr(hall.boards, "fill", away)
    with pytest.raises(StoreAway):
        await truth.rebuild(quiet)


async def test_scores_that_come_while_boards_are_made_again_count(hall: Hall, truth: Truth) -> None:
    model = await played(hall)
    await hall.wire.execute_command("FLUSHALL")
    rebuilding = asyncio.create_task(truth.rebuild(quiet))
    now = now_ms()
    for number in range(20):
        score = accepted(100 + number, f"u{number}", 5 + number % 9, now - number)
        model.add(score)
        await keeping_in(hall).keep([score])
    await rebuilding
    await agree(hall, model)
    assert await truth.verify(quiet) == []


async def test_what_differs_is_found_and_repaired(hall: Hall, truth: Truth) -> None:
    model = await played(hall)
    day = Board(hall.calendar.periods(now_ms()).day, "suika")
    some = (await hall.places(day))[0].user_id
    await hall.wire.execute_command("ZADD", TOTAL.key, "99999", "cheat")
    await hall.wire.execute_command("ZREM", TOTAL.key, "u1")
    await hall.wire.execute_command("ZINCRBY", day.key, "50", some)
    found = await truth.verify(quiet)
    assert {(each.board, each.user_id) for each in found} == {(TOTAL, "cheat"), (TOTAL, "u1"), (day, some)}
    wanted = {each.user_id: each.wanted is None for each in found}
    assert wanted == {"cheat": True, "u1": False, some: False}
    assert await truth.repair(found) == 3
    assert await truth.verify(quiet) == []
    await agree(hall, model)


async def test_who_is_removed_comes_back_with_all_that_they_reached_meanwhile(
    hall: Hall, truth: Truth
) -> None:
    model = await played(hall)
    assert await truth.remove("u5", "kim", "cheated")
    assert not await truth.remove("u5", "kim", "cheated")
    await agree(hall, model, without=("u5",))
    score = accepted(100, "u5", 1000, now_ms())
    model.add(score)
    await keeping_in(hall).keep([score])
    await agree(hall, model, without=("u5",))
    assert await truth.verify(quiet) == []
    await hall.wire.execute_command("FLUSHALL")
    await truth.rebuild(quiet)
    await agree(hall, model, without=("u5",))
    assert await truth.restore("u5")
    assert not await truth.restore("u5")
    await agree(hall, model)
    assert (await hall.places(TOTAL))[0] == Place(1, "u5", 1000)
    assert await truth.verify(quiet) == []
