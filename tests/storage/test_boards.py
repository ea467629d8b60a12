"""Boards on a real Redis: what they show, whatever was written in whatever order."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count, pairwise

import pytest

from protocol.messages.ranking import BoardType
from storage import keys
from storage.boards import (
    MOST_RAISED,
    MOST_RANKED,
    Best,
    Board,
    Boards,
    Changed,
    Group,
    Place,
    Raised,
    RemovedLost,
    Standing,
)
from storage.periods import ALL_TIME
from storage.servers import now_ms
from tests.storage.hall import DAY_MS, KEEP_PAST_S, Hall, Model, accepted, opened

TOTAL = Board(ALL_TIME)


@pytest.fixture
async def hall(redis_url: str, sqlite_url: str) -> AsyncIterator[Hall]:
    async with opened(redis_url, sqlite_url) as hall:
        yield hall


async def test_a_score_is_on_its_eight_boards_and_no_other(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 15_000, now))
    periods = hall.calendar.periods(now)
    for board_type in BoardType:
        for game_type in (None, "suika"):
            board = Board(periods[board_type], game_type)
            assert await hall.places(board) == [Place(1, "ada", 15_000)]
    boards = {name for name in await names(hall) if name.count(":") >= 2}
    assert boards == {
        keys.board(board_type.value, periods[board_type].name, game_type)
        for board_type in BoardType
        for game_type in (None, "suika")
    }


async def names(hall: Hall) -> set[str]:
    return {name.decode() for name in await hall.wire.execute_command("KEYS", "ranking:*")}


async def test_equal_scores_share_a_rank_in_the_order_they_were_reached_whoever_was_written_first(
    hall: Hall,
) -> None:
    now = now_ms()
    await hall.raise_scores(
        ("late", 700, now + 20), ("best", 800, now), ("early", 700, now), ("last", 1, now)
    )
    wanted = [Place(1, "best", 800), Place(2, "early", 700), Place(2, "late", 700), Place(4, "last", 1)]
    assert await hall.places(TOTAL) == wanted
    for offset in range(5):
        for limit in (1, 2, 5):
            assert await hall.places(TOTAL, offset, limit) == wanted[offset : offset + limit]
    assert await hall.boards.standing(TOTAL, "late") == Standing(4, 2, 700, 2)
    assert await hall.boards.standing(TOTAL, "nobody") == Standing(4)


async def test_a_worse_score_and_the_same_one_later_change_nothing(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 500, now), ("bob", 500, now + 5))
    await hall.raise_scores(("ada", 400, now + 9), ("ada", 500, now + 9))
    assert await hall.places(TOTAL) == [Place(1, "ada", 500), Place(1, "bob", 500)]
    await hall.raise_scores(("bob", 501, now + 9))
    assert await hall.places(TOTAL) == [Place(1, "bob", 501), Place(2, "ada", 500)]


async def test_what_was_written_is_told_with_what_was_there_before(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 500, now), ("bob", 400, now))
    group = Group("suika", hall.calendar.periods(now), [Best("bob", 600, now), Best("cat", 100, now)])
    bob, cat = await hall.boards.raise_scores([group])
    assert bob == Raised("bob", 600, group.periods, [400] * 4)
    assert cat == Raised("cat", 100, group.periods, [None] * 4)
    assert bob.has_risen
    assert cat.has_risen
    assert await hall.boards.raise_scores([group._replace(scores=[Best("bob", 1, now)])]) == []
    assert await hall.boards.raise_scores([group]) == []
    # Better than on another game's board of today, but not than ever.
    (chess,) = await hall.boards.raise_scores([Group("chess", group.periods, [Best("bob", 5, now)])])
    assert (chess.score_before, chess.has_risen, list(chess.changed)) == (600, False, [])
    ranks = {700: 1, 600: 1, 599: 2, 500: 2, 0: 4}
    assert await hall.boards.ranks({(TOTAL, score) for score in ranks}) == {
        (TOTAL, score): rank for score, rank in ranks.items()
    }


async def test_what_a_score_changes_is_told_of_each_board(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 500, now - 400 * DAY_MS))
    periods = hall.calendar.periods(now)
    group = Group("suika", periods, [Best("ada", 300, now)])
    (ada,) = await hall.boards.raise_scores([group])
    assert ada.before == [500, None, None, None]
    boards = [Board(period) for period in (periods.day, periods.week, periods.month)]
    assert list(ada.changed) == [(board, None) for board in boards]
    (ada,) = await hall.boards.raise_scores([group._replace(scores=[Best("ada", 600, now)])])
    assert list(ada.changed) == [(TOTAL, 500), *((board, 300) for board in boards)]
    assert set((await hall.boards.ranks({(board, 600) for board in boards})).values()) == {1}


async def test_ranks_on_several_boards_are_asked_for_in_one_call_or_more(hall: Hall) -> None:
    now = now_ms()
    count = MOST_RANKED // 2 + 7
    scores = [Best(f"u{number}", number - number % 3, now - number) for number in range(count)]
    periods = hall.calendar.periods(now)
    await hall.boards.raise_scores([Group("suika", periods, scores)])
    await hall.boards.raise_scores([Group("chess", periods, [Best("top", count, now)])])
    boards = [TOTAL, Board(ALL_TIME, "suika"), Board(periods.day, "chess"), Board(periods.week, "none")]
    reached = [*(best.score for best in scores), count]
    for some in (1, MOST_RANKED // 2, count):
        ranks = await hall.boards.ranks({(board, score) for board in boards for score in range(some)})
        for score in range(some):
            better = sum(each > score for each in reached)
            wanted = [1 + better, better, 1 + (count > score), 1]
            assert [ranks[board, score] for board in boards] == wanted
    assert await hall.boards.ranks(set()) == {}


async def test_more_than_a_call_holds_is_written_in_several(hall: Hall) -> None:
    now = now_ms()
    scores = [Best(f"u{number}", number, now) for number in range(2 * MOST_RAISED + 3)]
    raised = await hall.boards.raise_scores([Group("suika", hall.calendar.periods(now), scores)])
    assert [each.user_id for each in raised] == [best.user_id for best in scores]
    assert (await hall.boards.standing(TOTAL, "u0")).rank == len(scores)


async def test_the_top_is_told_once_a_second_and_only_when_it_changed(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(*((f"u{number}", 1000 + number, now) for number in range(100)))
    assert {board_type for board_type, _ in (await hall.boards.take_changed(0)).boards} == set(BoardType)
    assert await hall.boards.take_changed(0) == Changed([], None)
    await hall.raise_scores(("below", 999, now))
    assert await hall.boards.take_changed(0) == Changed([], None)
    await hall.raise_scores(("within", 1001, now))
    boards, due_s = await hall.boards.take_changed(600)
    assert boards == []
    assert due_s is not None
    assert 0 < due_s <= 600
    periods = hall.calendar.periods(now)
    wanted = [(board_type, periods[board_type].name) for board_type in BoardType]
    assert await hall.boards.take_changed(0) == Changed(wanted, None)


async def test_a_changed_top_wakes_once_whoever_is_first_until_it_is_told(hall: Hall) -> None:
    now, other = now_ms(), Boards(hall.wire, KEEP_PAST_S)
    woken = asyncio.create_task(hall.boards.until_changed(60))
    unaware = asyncio.create_task(other.until_changed(0))
    await hall.raise_scores(("ada", 1, now))
    await woken
    await hall.raise_scores(("ada", 2, now))
    await other.raise_scores([Group("suika", hall.calendar.periods(now), [Best("bob", 9, now)])])
    for boards in (hall.boards, other):
        assert not boards._noted.is_set()
    await unaware
    await hall.boards.take_changed(0)
    await other.raise_scores([Group("suika", hall.calendar.periods(now), [Best("bob", 10, now)])])
    await other.until_changed(60)
    assert not hall.boards._noted.is_set()


async def test_updates_of_a_board_are_a_second_apart_and_due_when_that_is_over(hall: Hall) -> None:
    """Whoever asks, however often: the stamps are Redis' own."""
    told: list[int] = []
    now = now_ms()

    async def ask(boards: Boards) -> None:
        while len(told) < 3:
            taken, due_s = await boards.take_changed(1.0)
            if BoardType.DAILY in dict(taken):
                told.append(int(await hall.wire.execute_command("HGET", keys.RANKING_CHANGED, "daily:told")))
            await asyncio.sleep(0.001 if due_s is None else due_s)

    async def play() -> None:
        for score in count(1):
            await hall.raise_scores(("ada", score, now))

    playing = asyncio.create_task(play())
    await asyncio.gather(*(ask(Boards(hall.wire, KEEP_PAST_S)) for _ in range(3)))
    playing.cancel()
    assert all(later - earlier >= 1000 for earlier, later in pairwise(told))


async def test_of_a_past_and_a_new_period_the_new_one_is_told(hall: Hall) -> None:
    now = now_ms()
    days = [hall.calendar.periods(at_ms).day.name for at_ms in (now - DAY_MS, now)]
    for score, (first, second) in enumerate(((now, now - DAY_MS), (now - DAY_MS, now))):
        await hall.raise_scores(("ada", score, first), ("ada", score, second))
        taken, _ = await hall.boards.take_changed(0)
        assert dict(taken)[BoardType.DAILY] == days[1]


async def test_past_boards_leave_redis_after_their_time(hall: Hall) -> None:
    now = now_ms()
    long_ago = now - int(KEEP_PAST_S * 1000) - 2 * DAY_MS
    await hall.raise_scores(("ada", 5, now), ("old", 9, long_ago))
    assert await hall.places(Board(hall.calendar.periods(long_ago).day)) == []
    assert [place.user_id for place in await hall.places(TOTAL)] == ["old", "ada"]
    day = hall.calendar.periods(now).day
    left_ms = await hall.wire.execute_command("PTTL", Board(day).key)
    assert day.ends_ms is not None
    assert 0 < left_ms <= day.ends_ms + KEEP_PAST_S * 1000 - now
    assert await hall.wire.execute_command("PTTL", TOTAL.key) == -1


async def test_the_removed_are_on_no_board_whatever_they_reach(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 5, now), ("eve", 9, now))
    assert await hall.boards.remove("eve", [TOTAL]) == 1
    group = Group("suika", hall.calendar.periods(now), [Best("eve", 99, now), Best("bob", 1, now)])
    assert [each.user_id for each in await hall.boards.raise_scores([group])] == ["bob"]
    await hall.boards.fill(ALL_TIME, [None], [Best("eve", 99, now)])
    assert [place.user_id for place in await hall.places(TOTAL)] == ["ada", "bob"]
    assert await hall.boards.removed() == {"eve"}
    await hall.boards.restore("eve")
    await hall.boards.fill(ALL_TIME, [None], [Best("eve", 99, now)])
    assert [place.user_id for place in await hall.places(TOTAL)] == ["eve", "ada", "bob"]


async def test_a_redis_that_lost_who_is_removed_takes_no_scores(hall: Hall) -> None:
    now = now_ms()
    await hall.wire.execute_command("FLUSHALL")
    for _ in range(2):
        with pytest.raises(RemovedLost):
            await hall.raise_scores(("eve", 5, now))
        with pytest.raises(RemovedLost):
            await hall.boards.fill(ALL_TIME, [None], [Best("eve", 5, now)])
        with pytest.raises(RemovedLost):
            await hall.boards.remove("eve", [TOTAL])
    assert await names(hall) == set()
    await hall.boards.remember_removed({"eve"})
    await hall.raise_scores(("eve", 5, now), ("ada", 1, now))
    assert [place.user_id for place in await hall.places(TOTAL)] == ["ada"]


async def test_only_what_is_still_as_it_was_seen_is_corrected(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 5, now), ("bob", 6, now), ("cat", 7, now))
    ada, bob = await hall.boards.numbers(TOTAL, ["ada", "bob"])
    await hall.raise_scores(("bob", 60, now))
    wrong = [("ada", ada, 3.5), ("bob", bob, None), ("cat", None, 1.5), ("dan", None, 2.5)]
    assert await hall.boards.correct(TOTAL, wrong) == 2
    assert await hall.boards.numbers(TOTAL, ["ada", "dan"]) == [3.5, 2.5]
    assert [place.user_id for place in await hall.places(TOTAL)] == ["bob", "cat", "ada", "dan"]


async def test_writing_in_any_order_and_again_makes_the_same_board(hall: Hall) -> None:
    now, model = now_ms(), Model()
    batch = [accepted(n, f"u{n % 7}", 100 + n % 5, now - 40 + n) for n in range(40)]
    for score in batch:
        model.add(score)
    for order in (batch[::-1], batch, batch[::3]):
        await hall.raise_scores(*((each.user_id, each.score, each.submitted_ms) for each in order))
    assert await hall.places(TOTAL) == model.places(ALL_TIME)
