"""Tasks as Redis keeps them: whose turn it is, who holds one, and that each ends once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.queues import Lane
from storage import keys
from storage.connections import connect
from storage.queues import GROUP, QueueServer
from storage.tasks import (
    Accepted,
    Ended,
    LostTask,
    NewTask,
    Taken,
    TaskOver,
    TaskQueueFull,
    Tasks,
    TaskStatus,
    TaskWork,
    TooManyTasks,
    WrongOffset,
)
from storage.tasks.acceptance import UNKNOWN_MEAN_MS
from storage.tickets import Record

KIND = "chore"
KEEP_S = 100.0
MOST_OPEN, MOST_WAITING = 1000, 1500


class Office:
    """Where tasks are asked for, and two workers who do them."""

    def __init__(self, url: str) -> None:
        self.redis = connect(url)
        self.tasks = Tasks(
            self.redis, QueueServer(self.redis), keep_s=KEEP_S, most_open=MOST_OPEN, most_waiting=MOST_WAITING
        )
        self.work = TaskWork(self.redis, "one", self.tasks.create, keep_s=KEEP_S)
        self.other = TaskWork(self.redis, "two", self.tasks.create, keep_s=KEEP_S)

    async def submit(
        self, user_id: str, count: int = 1, lane: Lane = Lane.NORMAL, first: int = 0
    ) -> list[str]:
        """Have tasks of a user accepted. Answers their ids."""
        new = [
            NewTask(f"task_1_{user_id}_{lane.value}{number}", user_id, lane, b"\x80")
            for number in range(first, first + count)
        ]
        answers = await self.tasks.submit_many(KIND, new)
        assert all(isinstance(answer, Accepted) for answer in answers)
        return [task.task_id for task in new]

    async def take(self, most: int = 1) -> list[Taken]:
        """Take tasks."""
        return (await self.work.take(KIND, most)).tasks

    async def status(self, task_id: str) -> TaskStatus:
        """A task's status."""
        state = await self.tasks.get(task_id)
        assert state is not None
        return state.status

    async def backlog(self) -> int:
        """How many entries the queue has."""
        return int(await self.redis.xlen(keys.task_queue(KIND)))


@pytest.fixture
async def office(redis_url: str) -> AsyncIterator[Office]:
    office = Office(redis_url)
    try:
        yield office
    finally:
        await office.redis.aclose()


class TestTurns:
    async def test_a_users_thousand_tasks_delay_anothers_first_by_one(self, office: Office) -> None:
        await office.submit("many", 1000)
        await office.take(10)
        (first,) = await office.submit("one")

        assert first in [task.task_id for task in await office.take(2)]

    async def test_users_take_turns(self, office: Office) -> None:
        await office.submit("a", 4)
        await office.submit("b", 4)

        order = [task.user_id for task in await office.take(8)]

        assert sorted(order[0:2]) == sorted(order[2:4]) == sorted(order[4:6]) == ["a", "b"]

    async def test_a_users_own_come_in_order(self, office: Office) -> None:
        ids = await office.submit("a", 30)
        assert [task.task_id for task in await office.take(30)] == ids

    async def test_lanes_share_by_weight_and_none_starves(self, office: Office) -> None:
        for lane in Lane:
            await office.submit("a", 60, lane)

        taken = [task.task_id.rsplit("_", 1)[1] for task in await office.take(50)]

        counts = [sum(name.startswith(lane.value) for name in taken) for lane in Lane]
        assert counts == pytest.approx([30, 15, 5], abs=1)

    async def test_who_has_been_idle_saves_no_turns_up(self, office: Office) -> None:
        await office.submit("busy", 100)
        await office.take(50)
        await office.submit("idle", 20)

        users = [task.user_id for task in await office.take(20)]

        assert users.count("idle") == pytest.approx(10, abs=1)


class TestAccepting:
    async def test_a_record_answers_the_first_one(self, office: Office) -> None:
        record = Record("request", 60)
        one, two = (NewTask(f"task_1_a_{number}", "a", Lane.NORMAL, b"", record) for number in (1, 2))

        first = await office.tasks.submit(KIND, one)
        again = await office.tasks.submit(KIND, two)

        assert again == first
        assert await office.backlog() == 1
        assert await office.tasks.get("task_1_a_2") is None

    async def test_a_user_has_so_many_open_and_no_more(self, office: Office) -> None:
        ids = await office.submit("a", MOST_OPEN)
        one_more = NewTask("task_2_a_x", "a", Lane.NORMAL, b"")
        with pytest.raises(TooManyTasks):
            await office.tasks.submit(KIND, one_more)

        (task,) = await office.take()
        await office.work.finish(KIND, [Ended(task, TaskStatus.COMPLETED, b"1")])

        await office.tasks.submit(KIND, one_more)
        assert set(await office.tasks.of("a")) == {*ids, "task_2_a_x"} - {task.task_id}

    async def test_a_full_queue_says_so(self, office: Office) -> None:
        await office.submit("a", MOST_OPEN)
        await office.submit("b", MOST_WAITING - MOST_OPEN)
        with pytest.raises(TaskQueueFull):
            await office.tasks.submit(KIND, NewTask("task_2_c_x", "c", Lane.NORMAL, b""))

    async def test_a_lost_queue_is_made_again(self, office: Office) -> None:
        await office.submit("a")
        await office.redis.flushall()
        (task_id,) = await office.submit("a")
        assert [task.task_id for task in await office.take()] == [task_id]

    async def test_a_held_task_waits_for_its_bytes(self, office: Office) -> None:
        await office.tasks.submit(KIND, NewTask("task_1_a_1", "a", Lane.NORMAL, b"\x80", held_bytes=10))
        state = await office.tasks.get("task_1_a_1")
        assert state is not None
        assert await office.take() == []

        assert await office.tasks.advance(state, 0, 4) == (4, False)
        assert await office.tasks.advance(state, 0, 4) == (4, False), "the same bytes again"
        for offset, length in ((5, 5), (3, 5), (3, 1), (4, 7), (11, 1)):
            with pytest.raises(WrongOffset) as wrong:
                await office.tasks.advance(state, offset, length)
            assert wrong.value.offset == 4
        assert await office.take() == []
        assert await office.tasks.advance(state, 4, 6) == (10, True)
        assert await office.tasks.advance(state, 4, 6) == (10, True)
        assert [task.task_id for task in await office.take(5)] == ["task_1_a_1"]


class TestEstimating:
    async def estimate(self, office: Office, user_id: str, number: int) -> int:
        """How long a new task is expected to take, in ms."""
        accepted = await office.tasks.submit(
            KIND, NewTask(f"task_2_{user_id}_{number}", user_id, Lane.NORMAL, b"")
        )
        return accepted.estimated_at - accepted.created_at

    async def test_follows_how_long_the_last_ones_took_and_who_is_ahead(self, office: Office) -> None:
        await office.submit("a", 3)
        for task in await office.take(3):
            ended = Ended(task, TaskStatus.COMPLETED, b"1", duration_ms=5000)
            assert await office.work.finish(KIND, [ended]) == [True]

        assert [await self.estimate(office, "a", number) for number in range(3)] == [5000, 10_000, 15_000]
        assert await self.estimate(office, "b", 0) == 5000, "it is not behind another's second"
        await office.take(2)
        assert await self.estimate(office, "c", 0) == pytest.approx(5000, abs=2500), "two are done at once"

    async def test_of_a_kind_that_nobody_has_seen_is_a_guess(self, office: Office) -> None:
        assert await self.estimate(office, "a", 0) == UNKNOWN_MEAN_MS

    async def test_forgets_what_is_long_ago(self, office: Office) -> None:
        for duration_ms in (60_000, *[100] * 60):
            await office.submit("a")
            (task,) = await office.take()
            await office.work.finish(KIND, [Ended(task, TaskStatus.COMPLETED, b"1", duration_ms=duration_ms)])
        assert 100 <= await self.estimate(office, "a", 0) < 300


class TestRestoring:
    async def test_gives_lost_tasks_back_as_they_were(self, office: Office) -> None:
        waiting = NewTask("task_5_a_1", "a", Lane.HIGH, b"\x80")
        coming = NewTask("task_5_a_2", "a", Lane.NORMAL, b"\x81")
        lost = [LostTask(waiting, 5), LostTask(coming, 6, (10, 4))]

        assert await office.tasks.restore(KIND, lost) == 2

        states = [await office.tasks.get(task.task_id) for task in (waiting, coming)]
        assert [state and (state.created_at, state.priority, state.upload_offset) for state in states] == [
            (5, "high", None),
            (6, "normal", 4),
        ]
        assert await office.tasks.of("a") == ["task_5_a_1", "task_5_a_2"]
        assert [(task.task_id, task.message) for task in await office.take(5)] == [("task_5_a_1", b"\x80")]
        assert states[1] is not None
        assert await office.tasks.advance(states[1], 4, 6) == (10, True)
        assert [(task.task_id, task.message) for task in await office.take(5)] == [("task_5_a_2", b"\x81")]

    async def test_leaves_what_is_there(self, office: Office) -> None:
        (task_id,) = await office.submit("a")
        await office.take()

        lost = LostTask(NewTask(task_id, "a", Lane.NORMAL, b"\x80"), 5)
        assert await office.tasks.restore(KIND, [lost]) == 0

        assert await office.status(task_id) is TaskStatus.PROCESSING
        assert await office.backlog() == 1

    async def test_refuses_nobody(self, office: Office) -> None:
        await office.submit("a", MOST_OPEN)
        lost = [
            LostTask(NewTask(f"task_5_a_{number}", "a", Lane.NORMAL, b""), 5)
            for number in range(MOST_WAITING)
        ]
        assert await office.tasks.restore(KIND, lost) == MOST_WAITING
        assert await office.backlog() == MOST_OPEN + MOST_WAITING

    async def test_makes_a_lost_queue_again_for_whoever_asks(self, office: Office) -> None:
        await office.submit("a")
        (task,) = await office.take()
        await office.redis.flushall()

        assert await office.work.renew(KIND, [task.entry]) == {task.entry}
        assert await office.work.hand_back(KIND, [task.entry]) == set()
        assert await office.work.finish(KIND, [Ended(task, TaskStatus.COMPLETED, b"1")]) == [False]
        assert await office.work.fail(KIND, task, "", retries=1, pause_s=0) is None
        assert await office.other.claim(KIND, 0) is None
        assert await office.backlog() == 0

    async def test_who_meets_a_lost_group_loses_no_task(self, office: Office) -> None:
        (task_id,) = await office.submit("a")
        await office.redis.xgroup_destroy(keys.task_queue(KIND), GROUP)

        assert await office.take() == [], "the group is made again"
        assert [task.task_id for task in await office.take()] == [task_id]


class TestEnding:
    async def test_the_first_end_counts(self, office: Office) -> None:
        (task_id,) = await office.submit("a")
        (task,) = await office.take()
        claimed = await office.other.claim(KIND, 0)
        assert claimed is not None
        assert (claimed.task_id, claimed.deliveries) == (task_id, 2)

        assert await office.other.finish(KIND, [Ended(claimed, TaskStatus.COMPLETED, b'"two"')]) == [True]
        assert await office.work.finish(KIND, [Ended(task, TaskStatus.COMPLETED, b'"one"')]) == [False]

        state = await office.tasks.get(task_id)
        assert state is not None
        assert (state.status, state.result, state.progress) == (TaskStatus.COMPLETED, b'"two"', 100)
        assert await office.backlog() == 0
        assert 0 < await office.redis.ttl(keys.task(task_id)) <= KEEP_S

    async def test_a_failure_is_tried_again_and_then_a_dead_letter(self, office: Office) -> None:
        (task_id,) = await office.submit("a")
        for attempt in range(3):
            (task,) = await office.take()
            status = await office.work.fail(KIND, task, f"cause {attempt}", retries=2, pause_s=0)
        assert status is TaskStatus.FAILED
        assert await office.take() == []
        assert await office.backlog() == 0
        state = await office.tasks.get(task_id)
        assert state is not None
        assert (state.status, state.error) == (TaskStatus.FAILED, "cause 2")
        letters: Any = await office.redis.xrange(keys.dead_letters(keys.task_queue(KIND)))
        ((letter, fields),) = letters
        assert (fields[b"cause"], fields[b"m"], state.letter) == (b"cause 2", b"\x80", letter.decode())

        assert await office.tasks.requeue(KIND, letter.decode()) == task_id
        assert await office.tasks.requeue(KIND, letter.decode()) is None
        assert [task.task_id for task in await office.take(5)] == [task_id]
        assert await office.tasks.of("a") == [task_id]

    async def test_a_pause_is_kept(self, office: Office) -> None:
        await office.submit("a")
        (task,) = await office.take()
        assert await office.work.fail(KIND, task, "", retries=1, pause_s=60) is TaskStatus.PENDING

        harvest = await office.work.take(KIND, 1)

        assert harvest.tasks == []
        assert 50_000 < harvest.pause_ms <= 60_000
        assert await office.other.claim(KIND, 0) is None, "nobody holds it meanwhile"

    async def test_a_cancelled_task_is_not_taken_and_not_ended(self, office: Office) -> None:
        waiting, held = await office.submit("a", 2)
        (task,) = await office.take()
        assert task.task_id == waiting
        for task_id in (waiting, held):
            state = await office.tasks.get(task_id)
            assert state is not None
            await office.tasks.cancel(state, Record(f"cancel {task_id}", 60))
            await office.tasks.cancel(state, Record(f"cancel {task_id}", 60))
            with pytest.raises(TaskOver):
                await office.tasks.cancel(state, Record("another", 60))

        assert await office.take(5) == []
        assert await office.work.renew(KIND, [task.entry]) == {task.entry}
        assert await office.work.cancelled([waiting]) == {waiting}
        assert await office.work.finish(KIND, [Ended(task, TaskStatus.COMPLETED, b"1")]) == [False]
        assert await office.status(waiting) is TaskStatus.CANCELLED
        assert await office.backlog() == 0

    async def test_what_is_handed_back_is_next(self, office: Office) -> None:
        ids = await office.submit("a", 3)
        (task,) = await office.take()

        await office.work.hand_back(KIND, [task.entry])

        assert await office.status(task.task_id) is TaskStatus.PENDING
        assert [task.task_id for task in await office.take(3)] == ids

    async def test_progress_is_news_once(self, office: Office) -> None:
        (task_id,) = await office.submit("a")
        assert await office.work.progress({task_id: 10}) == set(), "not before it is begun"
        await office.take()
        assert await office.work.progress({task_id: 10}) == {task_id}
        assert await office.work.progress({task_id: 10}) == set()


async def test_a_renewed_task_is_not_claimed(office: Office) -> None:
    await office.submit("a")
    (task,) = await office.take()
    assert await office.work.renew(KIND, [task.entry]) == set()
    assert await office.other.claim(KIND, 5) is None
    assert await office.other.renew(KIND, [task.entry]) == {task.entry}
