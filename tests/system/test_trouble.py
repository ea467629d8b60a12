"""Stores that go away and come back while players log in.

Whatever happens, a request is answered in time (503 BUSY where it cannot be served) or served later; nothing
is half done; and all goes on without a restart.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pymysql
import pytest
from redis.asyncio import Redis

from client import Player, RequestFailed, TicketLost
from protocol.messages.auth import Finalized, Login
from storage import keys
from storage.tickets import Tickets
from tests.servers import MariaServer, RedisServer
from tests.system.cluster import Cluster, Process, until
from tests.system.conftest import run_cluster
from tests.system.guest import HEARING_S, PASSWORD, Guest, registration

pytestmark = pytest.mark.servers

AWAY_S = 4.0
ANSWER_S = 8.0
"""Within this every request has an answer: the 2 s that are promised, and what a busy machine may add. Who is
forgotten gets TIMEOUT after 10 s, which no test here takes for an answer."""


@pytest.fixture
def valkey(servers_folder: Path) -> Iterator[RedisServer]:
    """A server of the test's own."""
    server = RedisServer("valkey", servers_folder / uuid.uuid4().hex)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def on_valkey(tmp_path: Path, valkey: RedisServer, sqlite_url: str) -> Iterator[Cluster]:
    for cluster in run_cluster(Cluster(tmp_path / "cluster", valkey.url, sqlite_url)):
        yield cluster.start(nodes=2, logins=2)


@pytest.fixture
def on_mariadb(tmp_path: Path, valkey_url: str, own_mariadb: MariaServer) -> Iterator[Cluster]:
    database_url = own_mariadb.create_database("lobbyd")
    for cluster in run_cluster(Cluster(tmp_path / "cluster", valkey_url, database_url)):
        yield cluster.start(nodes=2, logins=2)


class Comers:
    """Players who keep coming, one after the other, each registering and signing in as a game would."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tasks: list[asyncio.Task[Finalized]] = []
        self.names: list[str] = []

    async def keep_coming(self) -> None:
        while True:
            self._tasks.append(asyncio.create_task(self._one(f"comer-{len(self._tasks)}")))
            await asyncio.sleep(0.1)

    async def _one(self, name: str) -> Finalized:
        self.names.append(name)
        async with Player(self._cluster.endpoints) as player:
            await player.register(name, PASSWORD, f"{name}@example.com", name)
            return await player.sign_in(name, PASSWORD)

    async def all_in(self) -> None:
        """Wait until everybody who has come so far is signed in."""
        async with asyncio.timeout(60):
            assert [signed_in.user_id for signed_in in await asyncio.gather(*self._tasks)] == self.names


@asynccontextmanager
async def people_come(cluster: Cluster) -> AsyncIterator[None]:
    """Players come throughout; in the end every one of them is in, and nobody was made or admitted twice."""
    comers = Comers(cluster)
    coming = asyncio.create_task(comers.keep_coming())
    await asyncio.sleep(0.5)
    yield
    await asyncio.sleep(0.5)
    coming.cancel()
    await comers.all_in()
    redis = Redis.from_url(str(cluster.settings["redis.url"]))
    ledger = await Tickets(redis, 900).ledger()
    await redis.aclose()
    parts = ("waiting", "ready", "consumed", "cancelled", "expired")
    assert ledger["issued"] == sum(ledger[part] for part in parts), ledger
    assert ledger["issued"] == ledger["consumed"] == len(comers.names), ledger
    for name in comers.names:
        assert cluster.redis.hget(keys.session(name), "login_count") == "1"
        assert not cluster.redis.exists(keys.user_ticket(name))


async def answers_while(seconds: float, ask: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Ask again and again for a while. Answers how often each code came; every answer must come in time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    codes: Counter[str] = Counter()
    waits: list[int | None] = []
    while loop.time() < end_s:
        try:
            async with asyncio.timeout(ANSWER_S):
                await ask()
        except RequestFailed as refused:
            codes[refused.code] += 1
            waits.append(refused.retry_after_ms)
        else:
            codes["OK"] += 1
        await asyncio.sleep(0.05)
    assert sum(wait_ms is not None and wait_ms > 0 for wait_ms in waits) >= codes["BUSY"]
    return codes


async def test_redis_hangs(on_valkey: Cluster, valkey: RedisServer) -> None:
    guest = await Guest.at(on_valkey.endpoints[0])
    await guest.register("somebody")
    async with people_come(on_valkey):
        valkey.pause()

        codes = await answers_while(AWAY_S, lambda: guest.ask(Login(username="somebody", password="wrong")))

        valkey.resume()
    assert set(codes) <= {"BUSY", "INVALID_CREDENTIALS"}
    assert codes["BUSY"] > 0
    assert guest.connection.is_open
    guest.leave()
    all_are_up(on_valkey)


async def test_redis_restarts(on_valkey: Cluster, valkey: RedisServer) -> None:
    guest = await Guest.at(on_valkey.endpoints[0])
    await guest.register("somebody")
    async with people_come(on_valkey):
        await asyncio.sleep(1.2)  # what was answered is on disk within a second
        await asyncio.to_thread(valkey.stop)

        codes = await answers_while(AWAY_S, lambda: guest.ask(Login(username="somebody", password="wrong")))

        await asyncio.to_thread(valkey.start)
    assert set(codes) <= {"BUSY", "INVALID_CREDENTIALS"}
    assert codes["BUSY"] > 0
    assert guest.connection.is_open
    guest.leave()
    all_are_up(on_valkey)


def all_are_up(cluster: Cluster) -> None:
    for process in cluster.processes.values():
        assert process.exit_code is None, process.log
        cluster.wait_for(process, "READY")


@pytest.mark.parametrize("how", ["hangs", "is stopped"])
async def test_the_database_is_away(on_mariadb: Cluster, own_mariadb: MariaServer, how: str) -> None:
    guest = await Guest.at(on_mariadb.endpoints[0])
    names = iter(range(1_000_000))
    async with people_come(on_mariadb):
        await asyncio.to_thread(own_mariadb.pause if how == "hangs" else own_mariadb.stop)

        codes = await answers_while(AWAY_S, lambda: guest.ask(registration(f"late-{next(names)}")))

        await asyncio.to_thread(own_mariadb.resume if how == "hangs" else own_mariadb.start)
    assert set(codes) == {"BUSY"}
    assert guest.connection.is_open
    # Nothing is half made: who is known to Redis is in the database.
    connection = pymysql.connect(
        host="127.0.0.1", port=own_mariadb.port, user="lobbyd", password="only-for-tests", database="lobbyd"
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT user_id FROM users")
        in_sql = {row[0] for row in cursor.fetchall()}
    assert on_mariadb.redis.smembers(keys.USERNAMES) <= in_sql
    guest.leave()
    all_are_up(on_mariadb)


async def test_who_is_known_to_redis_logs_in_without_the_database(
    on_mariadb: Cluster, own_mariadb: MariaServer
) -> None:
    guest = await Guest.at(on_mariadb.endpoints[0])
    await guest.sign_up("regular")
    await asyncio.to_thread(own_mariadb.stop)

    assert (await guest.sign_in("regular")).user_id == "regular"

    guest.leave()


async def test_redis_loses_everything(on_valkey: Cluster, valkey: RedisServer) -> None:
    guest = await Guest.at(on_valkey.endpoints[0])
    await guest.register("early")
    await guest.log_in("early")

    valkey.clear()

    # Accounts are in the database; places and sessions are earned again, over both nodes.
    for endpoint in on_valkey.endpoints:
        async with Player([endpoint]) as player:
            await player.login("early", PASSWORD)
            await player.wait_until_ready()
            assert (await player.finalize()).user_id == "early"
    with pytest.raises(RequestFailed, match="USERNAME_TAKEN"):
        await guest.register("early")
    all_are_up(on_valkey)
    for process in on_valkey.processes.values():
        assert {"startTime", "version", "queueId"} <= on_valkey.status(process).keys()
    guest.leave()


async def test_a_place_that_is_lost_is_missed_before_long(
    on_valkey: Cluster, valkey: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.player.NEWS_S", 1.0)
    on_valkey.redis.hset(keys.PORTAL_CONFIG, "totalRate", "0.001")
    first = await Guest.at(on_valkey.endpoints[0])
    await first.sign_up("first")
    async with Player([on_valkey.endpoints[0]]) as player:
        await player.register("lost", PASSWORD, "lost@example.com", "lost")
        await player.login("lost", PASSWORD)
        waiting = asyncio.create_task(player.wait_until_ready())
        await asyncio.sleep(0.5)

        valkey.clear()

        with pytest.raises(TicketLost):
            async with asyncio.timeout(HEARING_S):
                await waiting
    first.leave()


async def test_redis_is_away_at_the_start(on_valkey: Cluster, valkey: RedisServer) -> None:
    await asyncio.to_thread(valkey.stop)
    node = on_valkey.start_node(wait=False)
    tries_once(node)
    worker = on_valkey.start_worker("login", 3, wait=False)
    tries_once(worker)

    await asyncio.to_thread(valkey.start)

    for process in (node, worker):
        process.thaw()
        on_valkey.wait_for(process, "READY")
    async with Player([node.endpoint]) as player:
        await player.register("patient", PASSWORD, "patient@example.com", "patient")
        assert (await player.sign_in("patient", PASSWORD)).user_id == "patient"


def tries_once(process: Process) -> None:
    """Wait until a process has tried in vain, and freeze it: a store may take longer to start."""
    until(lambda: "trying again" in process.log, f"{process.name} tries again")
    process.freeze()
