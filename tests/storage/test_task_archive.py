"""Tasks in the database: what Redis has lost, wholly or in part, it gets back, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.queues import Lane
from storage import keys
from storage.connections import connect
from storage.database import Database, T, Work
from storage.files import Files
from storage.migrations import migrate
from storage.objects import Objects
from storage.queues import QueueServer
from storage.tasks import Ended, NewTask, TaskArchive, Tasks, TaskStatus, TaskWork
from tests.servers import RedisServer

KIND = "chore"


class Stalling(Database):
    """A database whose transactions wait until they may begin."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked, self.may_begin = asyncio.Event(), asyncio.Event()

    async def transaction(self, work: Work[T]) -> T:
        self.asked.set()
        await self.may_begin.wait()
        return await super().transaction(work)


class Office:
    """Where tasks are asked for, done and written down."""

    def __init__(self, redis: RedisServer, database: Database, files: Files) -> None:
        self._server = redis
        self.redis = connect(redis.url)
        self.tasks = Tasks(self.redis, QueueServer(self.redis), keep_s=600)
        self.work = TaskWork(self.redis, "one", self.tasks.create, keep_s=600)
        self.archive = TaskArchive(database, self.redis, self.tasks)
        self._files = files

    async def submit(self, *names: str) -> None:
        """Have tasks accepted, and written to the database."""
        await self.tasks.submit_many(KIND, [new_task(name) for name in names])
        await self.save()

    async def save(self) -> None:
        """Write what changed to the database."""
        assert await self.archive.lead("one", 60)
        while await self.archive.save("one"):
            pass

    async def restore(self) -> int:
        """Give Redis back what it has lost. Answers how many tasks."""
        return await self.archive.restore(self._files)

    async def restart(self) -> None:
        """Have Redis begin another run, with the same data."""
        await asyncio.to_thread(self._server.stop)
        await asyncio.to_thread(self._server.start)

    async def lose(self, name: str) -> None:
        """Make Redis forget a task that waits, as if its last second were lost."""
        task = keys.task(f"task_1_a_{name}")
        entry = await self.redis.hget(task, "entry")
        assert entry is not None
        await self.redis.xdel(keys.task_queue(KIND), entry)
        await self.redis.zrem(keys.task_order(KIND), entry)
        await self.redis.srem(keys.user_tasks("a"), f"task_1_a_{name}")
        await self.redis.delete(task)

    async def taken(self) -> list[bytes]:
        """Take all that waits. Answers the tasks' inputs."""
        return sorted(task.message for task in (await self.work.take(KIND, 100)).tasks)


def new_task(name: str) -> NewTask:
    """A task of the one user."""
    return NewTask(f"task_1_a_{name}", "a", Lane.NORMAL, name.encode())


@pytest.fixture
async def office(own_redis: RedisServer, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    await migrate(sqlite_url)
    database = Database(sqlite_url)
    office = Office(own_redis, database, Files(database, Objects(str(tmp_path / "files")), 1_000_000))
    yield office
    await office.redis.aclose()
    await database.close()


async def test_another_run_of_redis_gets_back_what_it_has_lost(office: Office) -> None:
    await office.submit("one", "two", "three")
    assert await office.restore() == 0, "it has all of them"
    await office.lose("two")
    assert await office.restore() == 0, "this run was looked after"

    await office.restart()

    assert await office.restore() == 1
    assert await office.restore() == 0
    assert await office.taken() == [b"one", b"three", b"two"]
    assert await office.tasks.of("a") == ["task_1_a_one", "task_1_a_three", "task_1_a_two"]


async def test_what_is_over_does_not_come_back(office: Office) -> None:
    await office.submit("done", "failed", "waits", "held")
    done, failed, waits, _ = (await office.work.take(KIND, 100)).tasks
    ends = [Ended(done, TaskStatus.COMPLETED, b"1"), Ended(failed, TaskStatus.FAILED, error="no")]
    await office.work.finish(KIND, ends)
    await office.work.hand_back(KIND, [waits.entry])
    await office.save()

    await office.redis.flushall()

    assert await office.restore() == 2
    assert await office.taken() == [b"held", b"waits"]


async def test_a_task_that_was_taken_before_it_was_written_comes_back_too(office: Office) -> None:
    await office.tasks.submit(KIND, NewTask("task_1_a_quick", "a", Lane.HIGH, b"quick"))
    assert len((await office.work.take(KIND, 1)).tasks) == 1
    await office.save()

    await office.redis.flushall()

    assert await office.restore() == 1
    state = await office.tasks.get("task_1_a_quick")
    assert state is not None
    assert (state.status, state.priority) == (TaskStatus.PENDING, "high")
    assert await office.taken() == [b"quick"]


async def test_who_stalls_and_loses_the_lease_forgets_nothing_that_is_not_written(
    office: Office, sqlite_url: str
) -> None:
    await office.tasks.submit_many(KIND, [new_task("one"), new_task("two")])
    slow = Stalling(sqlite_url)
    stalled = TaskArchive(slow, office.redis, office.tasks)
    assert await stalled.lead("stalled", 60)
    saving = asyncio.create_task(stalled.save("stalled"))
    await slow.asked.wait()
    await office.redis.delete(keys.PORTAL_ARCHIVE)  # its time is over
    await office.save()
    await office.tasks.submit(KIND, new_task("three"))

    slow.may_begin.set()
    await saving
    await slow.close()

    await office.save()
    assert await office.archive.get("task_1_a_three") is not None
