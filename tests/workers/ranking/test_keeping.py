"""Keeping scores: whatever comes in whatever batches, however often and wherever it is cut off."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.codec import encode
from protocol.messages.ranking import BoardType
from storage import keys
from storage.boards import Board, Boards, Page
from storage.errors import StoreAway
from storage.periods import ALL_TIME, Calendar
from storage.queues import Entry
from storage.scores import Accepted
from storage.servers import now_ms
from storage.tables import best_scores, scores as scores_table
from tests.storage.hall import DAY_MS, Hall, Model, accepted
from tests.workers.ranking.conftest import keeping_in
from workers.ranking.keeping import Keeping
from workers.ranking.truth import Truth

GAMES = ("suika", "chess")
USERS = ("ada", "bob", "cat", "dan", "eve")


async def agree(hall: Hall, model: Model) -> None:
    """See that every board of today is as the model says, and that Redis and SQL agree."""
    periods = hall.calendar.periods(now_ms())
    for board_type in BoardType:
        for game_type in (None, *GAMES):
            board = Board(periods[board_type], game_type)
            wanted = model.places(board.period, game_type)
            assert await hall.places(board) == wanted
            for index, place in enumerate(wanted):
                standing = await hall.boards.standing(board, place.user_id)
                assert (standing.place, standing.rank, standing.score) == (index, place.rank, place.score)
    truth = Truth(hall.boards, hall.scores, hall.past, hall.removals, hall.calendar, 172_800)
    for period in (ALL_TIME, periods.day, periods.week, periods.month):
        assert await truth._compare(period) == []


def batches() -> st.SearchStrategy[list[list[tuple[int, int, int, int]]]]:
    """Batches of user, score, game and how many ms ago: few of each, so that there are ties and repeats."""
    one = st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 1), st.integers(0, 30))
    return st.lists(st.lists(one, min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=batches(), again=st.integers(0, 3), cut=st.sampled_from(["", "sql", "boards", "friends"]))
async def test_boards_are_what_a_plain_model_says(
    hall: Hall, drawn: list[list[tuple[int, int, int, int]]], again: int, cut: str
) -> None:
    await clear(hall)
    model, now = Model(), now_ms()
    made: list[list[Accepted]] = []
    for batch in drawn:
        scores: list[Accepted] = []
        for user, score, game, ago_ms in batch:
            # No two at the same ms: at that the order is Redis' own.
            at_ms = now - 1000 * ago_ms - len(made) * 10 - len(scores)
            number = 10 * len(made) + len(scores)
            scores.append(accepted(number, USERS[user], score, at_ms, GAMES[game]))
        made.append(scores)
        for each in scores:
            model.add(each)
    for index, scores in enumerate(made):
        if index == again and cut:
            await cut_off(hall, scores, cut)
        await keeping_in(hall).keep(scores)
    await keeping_in(hall).keep(made[again % len(made)])
    assert await hall.kept() == sum(map(len, made))
    await agree(hall, model)


async def clear(hall: Hall) -> None:
    async def empty(connection: AsyncConnection) -> None:
        for table in (best_scores, scores_table):
            await connection.execute(delete(table))

    await hall.database.transaction(empty)
    await hall.wire.execute_command("FLUSHDB")
    await hall.boards.remember_removed(set())


class Killed(BaseException):
    """The worker dies here."""


async def cut_off(hall: Hall, scores: Sequence[Accepted], after: str) -> None:
    """Keep scores in a worker that dies after a step."""
    keeping = keeping_in(hall)
    step = {"sql": keeping._raise, "boards": hall.friends.overtake, "friends": keeping._tell}[after]

    async def die(*_: Any) -> None:
        raise Killed

    owner: Any = hall.friends if after == "boards" else keeping
    setattr(owner, step.__name__, die)
    try:
        await keeping.keep(scores)
    except Killed:
        pass
    finally:
        delattr(owner, step.__name__)


async def test_a_batch_is_kept_together_and_then_settled(hall: Hall, keeping: Keeping) -> None:
    now, settled = now_ms(), asyncio.Event()
    outcomes: list[Exception | None] = []

    def settle(error: Exception | None) -> None:
        outcomes.append(error)
        if len(outcomes) == 30:
            settled.set()

    for number in range(30):
        score = accepted(number, f"u{number}", number, now)
        await keeping.work(Entry("queue", b"1-%d" % number, encode(score)), settle)
    running = asyncio.create_task(keeping.run())
    async with asyncio.timeout(60):
        await settled.wait()
    running.cancel()
    assert outcomes == [None] * 30
    assert await hall.kept() == 30
    assert (await hall.boards.standing(Board(ALL_TIME), "u29")).rank == 1


async def test_what_cannot_be_kept_fails_alone(hall: Hall, keeping: Keeping) -> None:
    now, done = now_ms(), asyncio.Event()
    outcomes: dict[int, Exception | None] = {}
    for number in range(5):
        user_id = "x" * 100 if number == 2 else f"u{number}"
        score = accepted(number, user_id, number, now)

        def settle(error: Exception | None, number: int = number) -> None:
            outcomes[number] = error
            if len(outcomes) == 5:
                done.set()

        await keeping.work(Entry("queue", b"1-1", encode(score)), settle)
    running = asyncio.create_task(keeping.run())
    async with asyncio.timeout(60):
        await done.wait()
    running.cancel()
    if hall.database._name.startswith("mysql"):  # SQLite does not mind long texts
        assert isinstance(outcomes.pop(2), Exception)
        assert await hall.kept() == 4
    assert set(outcomes.values()) == {None}


async def test_scores_wait_while_a_store_is_away_and_none_is_given_up(
    hall: Hall, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.ranking.keeping.AWAY_PAUSE_S", 0.01)
    keep, tries = hall.scores.keep, 0

    async def away(*given: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 20:
            raise StoreAway("away")
        await keep(*given)

    monkeypatch.setattr(hall.scores, "keep", away)
    outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    await keeping.work(Entry("queue", b"1-1", encode(accepted(1, "ada", 5, now_ms()))), outcome.set_result)
    running = asyncio.create_task(keeping.run())
    async with asyncio.timeout(60):
        assert await outcome is None
    running.cancel()
    assert await hall.kept() == 1


async def test_a_second_result_of_a_session_counts_for_nothing(hall: Hall, keeping: Keeping) -> None:
    now = now_ms()
    await keeping.keep([accepted(1, "ada", 5, now, session="s")])
    await keeping.keep([accepted(2, "ada", 50, now, session="s"), accepted(3, "bob", 1, now)])
    await keeping.keep([accepted(2, "ada", 50, now, session="s")])
    assert await hall.kept() == 2
    assert [(place.user_id, place.score) for place in await hall.places(Board(ALL_TIME))] == [
        ("ada", 5),
        ("bob", 1),
    ]


async def test_a_score_that_comes_through_late_counts_for_the_period_of_its_submission(
    hall: Hall, keeping: Keeping
) -> None:
    now = now_ms()
    yesterday = now - DAY_MS
    periods = hall.calendar.periods(yesterday)
    days = hall.calendar.days(periods.day)
    await keeping.keep([accepted(1, "ada", 5, yesterday)])
    await hall.past.freeze(Board(periods.day), days)
    await keeping.keep([accepted(2, "bob", 7, yesterday), accepted(3, "ada", 6, now)])
    assert [place.user_id for place in await hall.places(Board(periods.day))] == ["bob", "ada"]
    assert [place.user_id for place in await hall.places(Board(hall.calendar.periods(now).day))] == ["ada"]
    assert periods.day.name not in await hall.past.frozen()


async def test_a_redis_that_lost_its_data_learns_again_who_is_removed(hall: Hall, keeping: Keeping) -> None:
    await hall.removals.add("eve", "kim", "cheated")
    await hall.wire.execute_command("FLUSHALL")
    now = now_ms()
    await keeping.keep([accepted(1, "eve", 99, now), accepted(2, "ada", 5, now)])
    assert await hall.kept() == 2
    assert [place.user_id for place in await hall.places(Board(ALL_TIME))] == ["ada"]


@pytest.mark.parametrize(
    ("moment", "day", "week", "month"),
    [
        ("2024-12-29T23:59:59.999", "20241229", "2024W52", "202412"),
        ("2024-12-30T00:00:00.000", "20241230", "2025W01", "202412"),
        ("2024-12-31T23:59:59.999", "20241231", "2025W01", "202412"),
        ("2025-01-01T00:00:00.000", "20250101", "2025W01", "202501"),
        ("2021-01-03T23:59:59.999", "20210103", "2020W53", "202101"),
    ],
)
async def test_at_the_edges_of_a_year_a_score_is_on_the_boards_of_its_periods(
    hall: Hall, moment: str, day: str, week: str, month: str
) -> None:
    zone = ZoneInfo("Asia/Seoul")
    hall.calendar, hall.boards = Calendar("Asia/Seoul"), Boards(hall.wire, 10**9)
    at_ms = round(datetime.fromisoformat(moment).replace(tzinfo=zone).timestamp() * 1000)
    await keeping_in(hall).keep([accepted(1, "ada", 5, at_ms)])
    names = {name.decode() for name in await hall.wire.execute_command("KEYS", "ranking:*:*")}
    periods = {"total": "all", "daily": day, "weekly": week, "monthly": month}
    boards = {keys.board(board_type, period) for board_type, period in periods.items()}
    assert names == boards | {f"{board}:suika" for board in boards}
    for name in (day, week, month):
        period = hall.calendar.ending(name)
        await hall.past.freeze(Board(period), hall.calendar.days(period))
        assert await hall.past.page(Page(Board(period), 0, 9)) == await hall.places(Board(period))
