"""Decisions about workers as they are followed: who is started, who ends, and what becomes of their work."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from protocol.queues import Lane
from scripts.commands.scaler import CannotAct, Scaler
from storage import keys
from storage.connections import connect
from storage.queues import QueueServer
from storage.scaling import Decision, Scaling
from storage.tasks import NewTask, Tasks
from tests.system.cluster import Cluster, ClusterError, eventually
from tests.system.guest import Guest

pytestmark = pytest.mark.servers

ASKING = 6
"""Players who ask again as soon as they are answered: there is never a moment without work."""

SLOW = """
import asyncio, pathlib, runpy, sys
import msgspec
from workers.portal.kinds import Limits
from workers.portal.room import kinds

class Nothing(msgspec.Struct):
    pass

@kinds.kind("slow", Nothing, Limits(concurrency=1, time_limit_s=60))
async def wait(context, task):
    with open("begun", "a") as begun:
        begun.write(context.task_id + "\\n")
    while not pathlib.Path("go on").exists():
        await asyncio.sleep(0.05)

runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""


class Here:
    """Starts and ends workers as processes of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._left: set[str] = set()

    def named(self, worker_id: str) -> str:
        return worker_id

    async def workers(self, kind: str) -> Sequence[str]:
        found = {name for name in self._cluster.processes if name.rpartition("-")[0] == kind}
        return sorted(name for name in found - self._left if self._cluster[name].exit_code is None)

    async def start(self, worker_id: str) -> None:
        kind, _, number = worker_id.rpartition("-")
        try:
            await asyncio.to_thread(self._cluster.start_worker, kind, int(number))
        except ClusterError as error:
            raise CannotAct(str(error)) from None
        self._left.discard(worker_id)

    async def end(self, worker_id: str) -> None:
        await asyncio.to_thread(self._cluster[worker_id].end)
        self._left.add(worker_id)


class Followed:
    """A cluster whose decisions are followed. `said` is what was told."""

    def __init__(self, cluster: Cluster, name: str, is_dry: bool) -> None:
        self.said: list[str] = []
        self.redis = connect(str(cluster.settings["redis.url"]))
        self.driver = Here(cluster)
        self.scaler = Scaler(
            self.redis, self.driver, lambda text, _: self.said.append(text), name, is_dry=is_dry
        )
        self._changes = itertools.count(1)

    async def decide(self, kind: str, now: int, wanted: int) -> None:
        """Have this be the newest decision."""
        decision = Decision(kind, now, wanted, 0.5, f"the test wants {wanted}", next(self._changes))
        await Scaling(self.redis).decide({kind: decision})

    async def look(self, times: int = 5) -> None:
        """Follow the decisions again and again, and let what that begins come to its end."""
        for _ in range(times):
            await self.scaler.look()
            while self.scaler.is_changing:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def following(
    cluster: Cluster, name: str = "the test", *, is_dry: bool = False
) -> AsyncIterator[Followed]:
    followed = Followed(cluster, name, is_dry)
    try:
        yield followed
    finally:
        await followed.redis.aclose()


async def register_on(guest: Guest, names: Iterator[str], made: list[str], enough: asyncio.Event) -> None:
    """Make accounts, one after the other, until it is enough."""
    while not enough.is_set():
        name = next(names)
        await guest.register(name)
        made.append(name)


async def test_under_load_workers_finish_what_they_have_accepted_and_nothing_is_lost(
    cluster: Cluster,
) -> None:
    cluster.start(logins=3)
    guests = [await Guest.at(cluster.endpoints[0]) for _ in range(ASKING)]
    names = (f"player-{number}" for number in itertools.count())
    made: list[str] = []
    enough = asyncio.Event()
    asking = asyncio.gather(*(register_on(guest, names, made, enough) for guest in guests))
    await eventually(lambda: len(made) > 5 * ASKING, "there is load")

    async with following(cluster) as followed:
        await followed.decide("login", 3, 1)
        await followed.look()
        assert await followed.driver.workers("login") == ["login-1"]
        assert followed.said == ["login: 3 workers, the test wants 1; end login-3, login-2"]
        await followed.decide("login", 1, 2)
        await followed.look()
        assert await followed.driver.workers("login") == ["login-1", "login-2"]
    before = len(made)
    await eventually(lambda: len(made) > before + 5 * ASKING, "the load goes on")
    enough.set()
    await asking

    path = str(cluster.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT user_id FROM users ORDER BY user_id").fetchall()
    assert [name for (name,) in found] == sorted(made)
    await eventually(
        lambda: not any(cluster.redis.xlen(keys.lane_queue("login", lane)) for lane in Lane),
        "all is acknowledged",
    )
    for guest in guests:
        guest.leave()


async def test_who_works_on_a_task_is_not_taken_and_does_it_once(cluster: Cluster) -> None:
    (program := cluster.folder / "slow.py").write_text(SLOW)
    begun = cluster.folder / "begun"
    slow = [cluster.start_worker("portal", number, program=str(program), wait=False) for number in (2, 3)]
    cluster.start()
    for worker in slow:
        cluster.wait_for(worker, "READY")
    async with following(cluster) as followed:
        tasks = Tasks(followed.redis, QueueServer(followed.redis), keep_s=600)
        new = [NewTask(f"task_1_u_{number}", "u", Lane.NORMAL, b"\x80") for number in (1, 2)]
        await tasks.submit_many("slow", new)
        await eventually(lambda: begun.exists() and len(begun.read_text().split()) == 2, "both are begun")
        cluster.start_worker("portal", 1)

        await followed.decide("portal", 3, 2)
        await followed.look()
        assert await followed.driver.workers("portal") == ["portal-2", "portal-3"]

        await followed.decide("portal", 2, 1)
        await followed.look()
        assert await followed.driver.workers("portal") == ["portal-2", "portal-3"]
        assert followed.said[1:] == [
            "portal: 2 workers, the test wants 1; portal-3, portal-2 would, but not while at work"
        ]

        (cluster.folder / "go on").touch()
        await eventually(lambda: cluster.redis.xlen(keys.task_queue("slow")) == 0, "both are done")
        await followed.look()
        assert await followed.driver.workers("portal") == ["portal-2"]
        done = await tasks.get_many([task.task_id for task in new])
    assert [each.status.value for each in done if each] == ["completed", "completed"]
    assert sorted(begun.read_text().split()) == [task.task_id for task in new]


async def test_no_more_are_taken_than_decided_where_statuses_lag_behind(cluster: Cluster) -> None:
    cluster.start(logins=4)
    cluster["status-1"].kill()
    async with following(cluster) as followed:
        await followed.decide("login", 4, 3)
        await followed.look(times=10)
        assert cluster.status(cluster["login-4"])["statusCode"] == "READY"
        assert await followed.driver.workers("login") == ["login-1", "login-2", "login-3"]


async def test_a_dry_run_tells_and_does_nothing(cluster: Cluster) -> None:
    cluster.start()
    async with following(cluster, is_dry=True) as followed:
        await followed.decide("login", 1, 3)
        await followed.look()
        await followed.decide("login", 1, 1)
        await followed.look()
        cluster.start_worker("login", 2)
        await followed.decide("login", 2, 1)
        await followed.look()
        assert followed.said == [
            "login: 1 worker, the test wants 3; would start login-2, login-3",
            "login: 2 workers, the test wants 1; would end login-2",
        ]
        assert await followed.driver.workers("login") == ["login-1", "login-2"]
        assert await Scaling(followed.redis).follower() is None


async def test_workers_elsewhere_count_and_one_follows_at_a_time(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start()
    url = str(cluster.settings["redis.url"])
    elsewhere = Cluster(tmp_path / "elsewhere", url, str(cluster.settings["database.url"]))
    try:
        elsewhere.start_worker("login", 2)
        async with following(cluster) as followed, following(elsewhere, "another") as other:
            await followed.decide("login", 2, 3)
            await followed.look()
            assert followed.said == ["login: 2 workers, the test wants 3; start login-3"]
            await followed.decide("login", 3, 1)
            await other.look()
            assert other.said == ["the test follows already"]
            await followed.look()
            assert await followed.driver.workers("login") == []
            assert await other.driver.workers("login") == ["login-2"]
    finally:
        elsewhere.kill()


async def test_what_does_not_start_is_told_and_tried_once_a_decision(cluster: Cluster) -> None:
    cluster.start()
    cluster.settings["login.admit_rate"] = "many"
    async with following(cluster) as followed:
        await followed.decide("login", 1, 2)
        await followed.look(times=3)
        assert [text.partition(":")[0] for text in followed.said] == ["login", "login-2 did not start"]
        assert cluster["login-1"].exit_code is None
