"""Fixtures for the whole suite: real stores, started when the first test asks and ended with the run.

- `valkey_url`, `redis7_url`: a Redis that is empty at the start of each test; `redis_url` is each in turn.
- `mariadb_url`, `sqlite_url`: an empty database of its own for each test; `database_url` is each in turn.
- `pair`: the URLs of a database and a Redis, each kind once, for what does not care for the other's.
- `own_redis` (each in turn), `own_valkey`, `own_mariadb`: a server of its own for a test that stops, kills or
  pauses it.
"""

import os
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import hypothesis
import pytest

from storage.database import Database
from tests.loop import TimedLoop
from tests.servers import MariaServer, RedisKind, RedisServer, make_mariadb_seed

SERVER_FIXTURES = {
    "valkey_url", "redis7_url", "redis_url", "own_redis", "own_valkey", "mariadb_url", "own_mariadb",
}  # fmt: skip

DAY_S, LAST_S = 86_400, 120

# How long an example takes depends on the machine, which is not what the tests are about. Where it is decided
# whether a change lands (CI is set), all runs try the same examples; elsewhere each tries others.
hypothesis.settings.register_profile("exploring", deadline=None, print_blob=True)
hypothesis.settings.register_profile("repeatable", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("repeatable" if os.environ.get("CI") else "exploring")


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> Iterator[None]:
    """A store that a busy machine keeps from answering is not away, but where a test takes its own away."""
    with pytest.MonkeyPatch.context() as patch:
        if not {"own_redis", "own_valkey"}.intersection(request.fixturenames):
            patch.setattr("storage.connections.ANSWER_TIMEOUT_S", 20.0)
        if "own_mariadb" not in request.fixturenames:
            usual = cast("dict[str, object]", Database.__init__.__kwdefaults__)
            patch.setitem(usual, "time_limit_s", 20.0)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where midnight (UTC) is near, wait for it: boards and counts of a day begin anew, as no test expects.

    Before all fixtures of the test, and before its time begins to run.
    """
    left_s = DAY_S - time.time() % DAY_S
    if left_s < LAST_S and item.get_closest_marker("servers"):
        time.sleep(left_s + 1)
    return (yield)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], TimedLoop]]:
    """Run every async test on the loop that the daemons use."""
    return {"uvloop": TimedLoop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the mark `servers` on the tests that ask for a store."""
    for item in items:
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    # Not pytest's tmp_path: the path of MariaDB's socket may have 107 characters at most.
    with TemporaryDirectory(prefix="lobbyd-") as folder:
        yield Path(folder)


def run_redis(kind: RedisKind, folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(kind, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_valkey(servers_folder: Path) -> Iterator[RedisServer]:
    yield from run_redis("valkey", servers_folder / "valkey")


@pytest.fixture(scope="session")
def shared_redis7(servers_folder: Path) -> Iterator[RedisServer]:
    yield from run_redis("redis7", servers_folder / "redis7")


@pytest.fixture
def valkey_url(shared_valkey: RedisServer) -> str:
    shared_valkey.clear()
    return shared_valkey.url


@pytest.fixture
def redis7_url(shared_redis7: RedisServer) -> str:
    shared_redis7.clear()
    return shared_redis7.url


@pytest.fixture(params=["valkey", "redis7"])
def redis_url(request: pytest.FixtureRequest) -> str:
    return cast("str", request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["valkey", "redis7"])
def own_redis(request: pytest.FixtureRequest, servers_folder: Path) -> Iterator[RedisServer]:
    yield from run_redis(request.param, servers_folder / uuid.uuid4().hex)


@pytest.fixture
def own_valkey(servers_folder: Path) -> Iterator[RedisServer]:
    yield from run_redis("valkey", servers_folder / uuid.uuid4().hex)


@pytest.fixture(scope="session")
def mariadb_seed(servers_folder: Path) -> Path:
    seed = servers_folder / "mariadb-seed"
    make_mariadb_seed(seed)
    return seed


def run_mariadb(folder: Path, seed: Path) -> Iterator[MariaServer]:
    server = MariaServer(folder, seed)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_mariadb(servers_folder: Path, mariadb_seed: Path) -> Iterator[MariaServer]:
    yield from run_mariadb(servers_folder / "mariadb", mariadb_seed)


@pytest.fixture
def own_mariadb(servers_folder: Path, mariadb_seed: Path) -> Iterator[MariaServer]:
    yield from run_mariadb(servers_folder / uuid.uuid4().hex, mariadb_seed)


@pytest.fixture
def mariadb_url(shared_mariadb: MariaServer) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    yield shared_mariadb.create_database(name)
    shared_mariadb.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'lobbyd.sqlite3'}"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.servers)])
def database_url(request: pytest.FixtureRequest) -> str:
    return cast("str", request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=[("sqlite", "valkey"), pytest.param(("mariadb", "redis7"), marks=pytest.mark.servers)])
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    database, redis = request.param
    return request.getfixturevalue(f"{database}_url"), request.getfixturevalue(f"{redis}_url")
