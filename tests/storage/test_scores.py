"""Scores: accepted once, kept once, and the best of them remembered, on either database."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError
from sqlalchemy import select

from protocol.envelope import queue_create
from protocol.queues import QueueType
from storage import keys
from storage.boards import Best
from storage.connections import connect
from storage.errors import StoreAway
from storage.periods import ALL
from storage.queues import Busy, QueueServer
from storage.scores import CHUNK, AlreadySubmitted, SecondResults, Submission, Submissions, decode_score
from storage.servers import now_ms
from storage.tables import best_scores
from storage.tickets import Record
from tests.storage.hall import Hall, accepted, opened

QUEUE = keys.SUBMITTED_SCORES


@pytest.fixture
async def hall(valkey_url: str, database_url: str) -> AsyncIterator[Hall]:
    async with opened(valkey_url, database_url) as hall:
        yield hall


@pytest.fixture
async def queue(redis_url: str, sqlite_url: str) -> AsyncIterator[Hall]:
    """A hall with the queue of accepted scores, which holds five."""
    async with opened(redis_url, sqlite_url) as hall, connect(redis_url) as redis:
        message = queue_create("ranking", QUEUE, QueueType.JOB, max_size=5, expire_s=60)
        await QueueServer(redis).create(message)
        yield hall


async def bests(hall: Hall) -> dict[tuple[str, str, str], tuple[int, int]]:
    columns = best_scores.c
    rows = await hall.database.read(
        lambda connection: connection.execute(
            select(columns.period, columns.game_type, columns.user_id, columns.score, columns.reached_at)
        )
    )
    return {(period, game, user): (score, reached) for period, game, user, score, reached in rows}


async def queued(hall: Hall) -> list[str]:
    rows = await hall.wire.execute_command("XRANGE", QUEUE, "-", "+")
    return [decode_score(fields[1]).task_id for _, fields in rows]


def submission(number: int, record: str, session: str | None = None, user_id: str = "ada") -> Submission:
    return Submission(accepted(number, user_id, number, 1000, session=session), Record(record, 60))


async def test_a_repeat_of_a_request_is_accepted_once(queue: Hall) -> None:
    submissions = Submissions(queue.wire)
    first = await submissions.accept(submission(1, "one"))
    again = await asyncio.gather(
        *(
            submissions.accept(each)
            for each in (submission(2, "one"), submission(3, "two"), submission(4, "two"))
        )
    )
    assert again == [first, "task_1000_ada_3", "task_1000_ada_3"]
    assert await queued(queue) == [first, "task_1000_ada_3"]
    last = await queue.wire.execute_command("HGETALL", keys.temp_score("ada"))
    assert dict(zip(last[::2], last[1::2], strict=True)) == {
        b"score": b"3", b"game_type": b"suika", b"difficulty": b"easy", b"timestamp": b"1000"
    }  # fmt: skip
    assert int(await queue.wire.execute_command("HGET", keys.queue_stats(QUEUE), "published")) == 2


async def test_a_game_session_has_one_result_a_user(queue: Hall) -> None:
    submissions = Submissions(queue.wire)
    await submissions.accept(submission(1, "one", "session"))
    with pytest.raises(AlreadySubmitted):
        await submissions.accept(submission(2, "two", "session"))
    assert await submissions.accept(submission(3, "one", "session")) == "task_1000_ada_1"
    await submissions.accept(submission(4, "three", "session", "bob"))
    assert len(await queued(queue)) == 2


async def test_a_full_queue_refuses_what_has_no_room_and_forgets_nothing(queue: Hall) -> None:
    submissions = Submissions(queue.wire)
    answers = await asyncio.gather(
        *(submissions.accept(submission(number, f"r{number}")) for number in range(7)), return_exceptions=True
    )
    assert [isinstance(answer, Busy) for answer in answers] == [False] * 5 + [True] * 2
    assert await submissions.accept(submission(9, "r0")) == answers[0]
    with pytest.raises(Busy):
        await submissions.accept(submission(6, "r6"))
    assert not await queue.wire.execute_command("EXISTS", keys.request_record("r6"))


async def test_without_its_queue_nothing_is_accepted(queue: Hall) -> None:
    await queue.wire.execute_command("FLUSHALL")
    with pytest.raises(StoreAway):
        await Submissions(queue.wire).accept(submission(1, "one"))
    assert await queue.wire.execute_command("DBSIZE") == 0


async def test_a_key_of_another_type_is_noticed_before_anything_is_written(queue: Hall) -> None:
    await queue.wire.execute_command("SET", keys.temp_score("bob"), "text")
    submissions = Submissions(queue.wire)
    answers = await asyncio.gather(
        submissions.accept(submission(1, "one")),
        submissions.accept(submission(2, "two", user_id="bob")),
        return_exceptions=True,
    )
    assert all(isinstance(answer, ResponseError) for answer in answers)
    assert await queued(queue) == []


async def test_scores_are_kept_once_and_the_best_of_them_remembered(hall: Hall) -> None:
    at_ms = now_ms()
    day = hall.calendar.periods(at_ms).day.name
    batch = [accepted(1, "ada", 500, at_ms), accepted(2, "bob", 400, at_ms, "chess")]
    await hall.keep(*batch)
    await hall.keep(accepted(3, "ada", 300, at_ms + 1), accepted(4, "bob", 600, at_ms + 1, "chess"))
    await hall.keep(*batch)
    assert await hall.kept() == 4
    assert await bests(hall) == {
        (period, *row): value
        for period in (ALL, day)
        for row, value in {("suika", "ada"): (500, at_ms), ("chess", "bob"): (600, at_ms + 1)}.items()
    }
    assert await hall.scores.game_types() == ["chess", "suika"]


async def test_of_equal_scores_the_earlier_stays_whichever_comes_first(hall: Hall) -> None:
    at_ms = now_ms()
    for later in (5, 3, 9):
        await hall.keep(accepted(later, "ada", 500, at_ms + later))
    assert (await bests(hall))[ALL, "suika", "ada"] == (500, at_ms + 3)


async def test_a_second_result_of_a_session_keeps_the_whole_batch_out(hall: Hall) -> None:
    at_ms = now_ms()
    first = accepted(1, "ada", 5, at_ms, session="s")
    await hall.keep(first, accepted(2, "bob", 6, at_ms, session="s"))
    with pytest.raises(SecondResults) as refused:
        await hall.keep(accepted(3, "ada", 50, at_ms, session="s"), accepted(4, "cat", 7, at_ms))
    assert refused.value.task_ids == {f"task_{at_ms}_ada_3"}
    assert await hall.kept() == 2
    await hall.keep(first, accepted(4, "cat", 7, at_ms))
    assert await hall.scores.has_result("s", "ada")
    assert not await hall.scores.has_result("s", "cat")
    assert {row[2]: value[0] for row, value in (await bests(hall)).items()} == {"ada": 5, "bob": 6, "cat": 7}


async def test_any_number_at_once_keep_the_same_scores_once(hall: Hall) -> None:
    at_ms = now_ms()
    batch = [accepted(number, f"u{number % 9}", number, at_ms) for number in range(60)]
    await asyncio.gather(*(hall.keep(*batch[start:], *batch[:start]) for start in (0, 7, 20, 33)))
    assert await hall.kept() == 60
    found = await bests(hall)
    for number in range(51, 60):
        assert found[ALL, "suika", f"u{number % 9}"] == (number, at_ms)


async def test_bests_are_read_by_user_in_chunks(hall: Hall) -> None:
    at_ms = now_ms()
    count = CHUNK + 5
    rows = [(ALL, "suika", Best(f"u{number:05}", number, at_ms)) for number in range(count)]
    await hall.scores.keep([accepted(1, "ada", 1, at_ms)], rows, set())
    chunks = [chunk async for chunk in hall.scores.best(ALL, "suika")]
    assert [len(chunk) for chunk in chunks] == [CHUNK, 5]
    assert [best for chunk in chunks for best in chunk] == [best for _, _, best in rows]
    assert await hall.scores.count({(ALL, "suika"), (ALL, "chess")}) == count
    some = await hall.scores.best_of({ALL}, {"suika"}, {"u00007", "nobody"})
    assert some == [Best("u00007", 7, at_ms)]
