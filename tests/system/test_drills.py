"""What docs/operations.md has operators do: upgrade under load, lose Redis, back up and restore."""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from client import Player
from protocol.messages.auth import TokenPair
from protocol.messages.portal import Channel, Submit, Submitted, TaskType
from protocol.messages.ranking import BoardType, GetRankings, Rankings, ScoreAccepted, SubmitScore
from storage import keys
from tests.conftest import run_redis
from tests.servers import HOST, MARIADB_PASSWORD, MARIADB_USER, MariaServer, RedisServer, find_program
from tests.system.cluster import Cluster, eventually, until
from tests.system.conftest import run_cluster
from tests.system.guest import PASSWORD, Guest
from tests.system.portal.asking import becomes, rows, signed_in

pytestmark = pytest.mark.servers

QUICK = {"status.heartbeat_s": 0.5}
BACK_WITHIN_S = 300.0
"""Recovery within five minutes is what is promised."""


def score_of(score: int) -> SubmitScore:
    return SubmitScore(score=score, game_type="suika", difficulty="easy")


async def come_in(cluster: Cluster, name: str, *, is_new: bool = True) -> Player:
    """Sign somebody in over whichever node takes them."""
    player = Player(cluster.endpoints)
    if is_new:
        await player.register(name, PASSWORD, f"{name}@example.com", name)
    await player.sign_in(name, PASSWORD)
    return player


async def has_score(player: Player, score: int) -> bool:
    found = cast(Rankings, await player.request(GetRankings(type=BoardType.TOTAL, game_type="suika")))
    return found.user_score == score


async def plays(cluster: Cluster, name: str, score: int) -> None:
    """Have somebody new reach a score that counts."""
    async with await come_in(cluster, name) as player:
        await player.request(score_of(score))
        await becomes(lambda: has_score(player, score), "the score counts")


async def operated(cluster: Cluster, *words: str) -> str:
    """What a command that works says."""
    done = await asyncio.to_thread(cluster.operate, *words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


# An upgrade.


class Load:
    """Players who ask one thing after the other, and newcomers who sign in, until it is over."""

    PLAYERS = 6

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._is_over = False
        self.accepted: list[str] = []
        self.came = 0

    @contextlib.asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        """Every request made while this is entered, and each begun in it, must have been answered."""
        asking = [asyncio.create_task(self._keep_asking(number)) for number in range(self.PLAYERS)]
        asking.append(asyncio.create_task(self._keep_coming()))
        await self.goes_on()
        yield
        await self.goes_on()
        self._is_over = True
        await asyncio.gather(*asking)

    async def goes_on(self) -> None:
        """Wait until more has been answered to everybody."""
        wanted = len(self.accepted) + 2 * self.PLAYERS, self.came + 1
        await becomes(self._has(wanted), "players are answered")

    def _has(self, wanted: tuple[int, int]) -> Callable[[], Awaitable[bool]]:
        async def reached() -> bool:
            return len(self.accepted) >= wanted[0] and self.came >= wanted[1]

        return reached

    async def _keep_asking(self, number: int) -> None:
        async with await come_in(self._cluster, f"player-{number}") as player:
            while not self._is_over:
                score = score_of(len(self.accepted))
                self.accepted.append(cast(ScoreAccepted, await player.request(score)).task_id)
                await player.request(GetRankings(type=BoardType.TOTAL))
                await asyncio.sleep(0.02)

    async def _keep_coming(self) -> None:
        while not self._is_over:
            async with await come_in(self._cluster, f"newcomer-{self.came}"):
                self.came += 1
            await asyncio.sleep(0.1)


async def test_an_upgrade_of_one_process_after_the_other_loses_no_request(cluster: Cluster) -> None:
    cluster.settings |= QUICK
    cluster.start(nodes=2, logins=2)
    for number in (1, 2):
        cluster.start_worker("ranking", number, wait=False)
    for process in cluster.processes.values():
        cluster.wait_for(process, "READY")
    load = Load(cluster)

    async with load.runs():
        for name in ("status-1", "login-1", "ranking-1", "SOCK001", "SOCK002"):
            before = cluster[name]
            said = await operated(cluster, "drain", name, "--yes")
            assert ("STOPPED" in said) == (name != "status-1"), said
            assert await asyncio.to_thread(before.wait) == 0, before.log
            if name.startswith("SOCK"):
                await asyncio.to_thread(cluster.start_node, int(name.removeprefix("SOCK")))
            else:
                await asyncio.to_thread(cluster.start_worker, name.partition("-")[0])
            await load.goes_on()

    assert len(set(load.accepted)) == len(load.accepted)
    await eventually(lambda: not cluster.redis.xlen(keys.SUBMITTED_SCORES), "every score is kept")
    kept = {task_id for (task_id,) in await rows(cluster, "SELECT task_id FROM scores")}
    assert kept == set(load.accepted)
    assert cluster.redis.keys(keys.dead_letters("*")) == []


# A lost Redis.


@pytest.fixture
def silent_mail() -> Iterator[str]:
    """A mail server that takes connections and never says a word."""
    with socket.create_server((HOST, 0)) as server:
        yield f"smtp://{HOST}:{server.getsockname()[1]}"


def lose(server: RedisServer) -> None:
    """Have a Redis crash and its disk be gone."""
    server.kill()
    shutil.rmtree(server.directory)
    server.start()


def redis_cli(url: str, *words: str) -> str:
    """What the program says that operators have for Redis."""
    return output(find_program("redis-cli"), "-u", url, *words)


def output(*command: str, **options: Any) -> str:
    """What a program that works says."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def losing(tmp_path: Path, own_valkey: RedisServer, sqlite_url: str, silent_mail: str) -> Iterator[Cluster]:
    settings = {**QUICK, "portal.smtp_url": silent_mail}
    for cluster in run_cluster(Cluster(tmp_path / "cluster", own_valkey.url, sqlite_url, settings)):
        cluster.start()
        for kind in ("ranking", "portal", "matching", "operations"):
            cluster.start_worker(kind, wait=False)
        for process in cluster.processes.values():
            cluster.wait_for(process, "READY")
        yield cluster


async def test_a_redis_that_was_lost_is_back_within_minutes(losing: Cluster, own_valkey: RedisServer) -> None:
    await plays(losing, "ada", 100)
    await plays(losing, "bob", 101)
    task_id = await an_open_task(losing)
    board = losing.redis.zrevrange(keys.board("total", "all"), 0, -1, withscores=True)
    await operated(losing, "ranking", "remove", "bob")

    async with asyncio.timeout(BACK_WITHIN_S):
        redis_cli(own_valkey.url, "FLUSHALL")
        await eventually(lambda: losing.redis.exists(keys.task(task_id)) == 1, "the task is there again")
        await asyncio.to_thread(lose, own_valkey)

        await plays(losing, "cleo", 300)
        async with await come_in(losing, "ada", is_new=False) as player:
            said = json.loads(await operated(losing, "ranking", "rebuild", "--json"))
            assert await has_score(player, 100), said
        await operated(losing, "ranking", "verify")
        await operated(losing, "ranking", "restore", "bob")
        again: Any = losing.redis.zrevrange(keys.board("total", "all"), 0, -1, withscores=True)
        assert [each for each in again if each[0] != "cleo"] == board
        await eventually(lambda: losing.redis.exists(keys.task(task_id)) == 1, "the task is there again")
        for process in losing.processes.values():
            await asyncio.to_thread(losing.wait_for, process, "READY")
        found = json.loads(await operated(losing, "status", "--json"))
        assert {each["queueId"] for each in found["queues"]} >= {"SOCK001_Q", "login_queue:normal"}


async def an_open_task(cluster: Cluster) -> str:
    """A task that is under way, and that the database knows of."""
    admin = await signed_in(cluster, role="ADMIN")
    message = Submit(
        task_type=TaskType.NOTIFICATION, channel=Channel.EMAIL, message="점검", recipients=(admin.name,)
    )
    task_id = cast(Submitted, await admin.ask(message)).task_id

    async def is_written() -> bool:
        asked = "SELECT 1 FROM portal_tasks WHERE task_id = :id AND finished_at IS NULL"
        return bool(await rows(cluster, asked, id=task_id))

    await becomes(is_written, "the task is in the database")
    admin.leave()
    return task_id


# A backup.


async def test_a_backup_of_both_stores_is_the_system_as_it_was(
    tmp_path: Path, servers_folder: Path, own_mariadb: MariaServer
) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    for redis in run_redis("redis7", servers_folder / uuid.uuid4().hex):
        database_url = own_mariadb.create_database("lobbyd")
        for cluster in run_cluster(Cluster(tmp_path / "cluster", redis.url, database_url, QUICK)):
            start(cluster)
            async with await come_in(cluster, "ada") as player:
                await player.request(score_of(100))
                await becomes(lambda: has_score(player, 100), "the score counts")
                tokens = cast(TokenPair, player.tokens)
            for process in reversed(cluster.processes.values()):
                await asyncio.to_thread(process.end)
            dump = mariadb(own_mariadb, "mariadb-dump", "--single-transaction", "lobbyd")
            redis_cli(redis.url, "--rdb", str(backup / "redis.rdb"))

            own_mariadb.drop_database("lobbyd")
            redis.kill()
            shutil.rmtree(redis.directory)

            own_mariadb.create_database("lobbyd")
            mariadb(own_mariadb, "mariadb", "lobbyd", input=dump)
            await asyncio.to_thread(restored, redis, backup / "redis.rdb")
            start(cluster)
            guest = await Guest.at(cluster["SOCK001"].endpoint)
            assert (await guest.resume(tokens.access_token)).user_id == "ada"
            found = cast(Rankings, await guest.ask(GetRankings(type=BoardType.TOTAL, game_type="suika")))
            assert found.user_score == 100
            await operated(cluster, "ranking", "verify")
            guest.leave()


def start(cluster: Cluster) -> None:
    """Start what there must be for players to sign in and have scores."""
    cluster.start_worker("ranking", wait=False)
    cluster.start_worker("status", wait=False)
    cluster.start_worker("login", wait=False)
    cluster.start_node(1, wait=False)
    for process in cluster.processes.values():
        cluster.wait_for(process, "READY")


def mariadb(server: MariaServer, program: str, *words: str, **options: Any) -> str:
    """What one of MariaDB's own programs says."""
    where = (
        f"--host={HOST}",
        f"--port={server.port}",
        f"--user={MARIADB_USER}",
        f"--password={MARIADB_PASSWORD}",
    )
    return output(find_program(program), "--no-defaults", *where, *words, **options)


def restored(redis: RedisServer, snapshot: Path) -> None:
    """Start a Redis, which keeps an append-only file, with what is in a snapshot."""
    redis.directory.mkdir()
    shutil.copy(snapshot, redis.directory / "dump.rdb")
    where = "--bind", HOST, "--port", str(redis.port), "--dir", str(redis.directory)
    # With an append-only file switched on Redis would begin empty, and look at no snapshot.
    without = [find_program("redis-server"), *where, "--appendonly", "no", "--save", ""]
    with subprocess.Popen(without, stdout=subprocess.DEVNULL):
        until(lambda: "loading:0" in redis_info(redis), "the snapshot is read")
        redis_cli(redis.url, "CONFIG", "SET", "appendonly", "yes")
        until(lambda: is_written(redis_info(redis)), "the append-only file is written")
        redis_cli(redis.url, "SHUTDOWN", "NOSAVE")
    redis.start()


def is_written(info: str) -> bool:
    said = set(info.split())
    return {"aof_enabled:1", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"} <= said


def redis_info(redis: RedisServer) -> str:
    try:
        return redis_cli(redis.url, "INFO", "persistence")
    except AssertionError:  # it does not listen yet
        return ""
