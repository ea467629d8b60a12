"""Clusters for the system tests.

- `cluster`: an empty one of a test's own, on the shared Valkey and SQLite, for what it starts itself.
- `house`: one node, one login worker and a status manager that a module's tests share. Tests in it use
  names of their own, and leave it as it was.
- `town`: the same with two nodes and two login workers.
- `watched`: a status manager and a login worker with quick heartbeats; each test starts nodes of its own.
- `guest`, `attacker`: connections to the house; `neighbour`: one whose service must not suffer from the test.
- `name`: a username that nobody has.

When a test fails, the logs of its processes are part of the report. A process that logs a traceback while
it goes on fails the test, whatever else happened.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from client import RequestFailed
from protocol.messages.auth import Login
from protocol.messages.connection import Goodbye, Ping
from tests.conftest import run_redis
from tests.servers import RedisKind
from tests.system.cluster import Cluster, Settings
from tests.system.guest import PASSWORD, Guest

LOG_END_CHARACTERS = 6_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's processes."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Cluster):
                with contextlib.suppress(FileNotFoundError):  # in the teardown that removed them
                    for name, log in value.logs():
                        report.sections.append((f"log of {name}", log[-LOG_END_CHARACTERS:]))
    return report


def run_cluster(cluster: Cluster) -> Iterator[Cluster]:
    try:
        yield cluster
    finally:
        cluster.kill()
    for name, log in cluster.logs():
        for line in log.splitlines():
            assert not is_trouble(line), f"{name}: {line}"


def is_trouble(line: str) -> bool:
    """Whether a line of a log tells of a traceback that there should not be.

    uvloop logs one, too, for a TLS connection that was given up in its handshake and of which more was read
    already; a process that a busy machine kept from its handshake for 2 s does just that, and connects again.
    """
    if "Fatal error on SSL protocol" in line and "the handler is closed" in line:
        return False
    return "Traceback" in line and '"event": "ends in error"' not in line


@pytest.fixture
def cluster(tmp_path: Path, valkey_url: str, sqlite_url: str) -> Iterator[Cluster]:
    yield from run_cluster(Cluster(tmp_path / "cluster", valkey_url, sqlite_url))


def run_house(
    folder: Path, settings: Settings, kind: RedisKind = "valkey", database_url: str | None = None
) -> Iterator[Cluster]:
    """A cluster that may outlive tests which empty the shared stores: on a Redis of its own, and SQLite."""
    for redis in run_redis(kind, folder / "redis"):
        url = database_url or f"sqlite+aiosqlite:///{folder / 'lobbyd.sqlite3'}"
        yield from run_cluster(Cluster(folder / "cluster", redis.url, url, settings))


@pytest.fixture(scope="module")
def house(servers_folder: Path) -> Iterator[Cluster]:
    for cluster in run_house(servers_folder / uuid.uuid4().hex, {}):
        yield cluster.start()


@pytest.fixture(scope="module")
def town(servers_folder: Path) -> Iterator[Cluster]:
    for cluster in run_house(servers_folder / uuid.uuid4().hex, {}):
        yield cluster.start(nodes=2, logins=2)


@pytest.fixture(scope="module")
def watched(servers_folder: Path) -> Iterator[Cluster]:
    # Patience for a busy machine, on which a process may stand still for more than a second.
    settings = {"status.heartbeat_s": 0.5, "status.missed_heartbeats": 5}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        yield cluster.start(nodes=0)


@pytest.fixture
def name() -> str:
    """A username that nobody has."""
    return f"player-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def guest(house: Cluster) -> AsyncIterator[Guest]:
    """Somebody in the house."""
    guest = await Guest.at(house["SOCK001"].endpoint)
    yield guest
    guest.leave()


@pytest.fixture
async def attacker(house: Cluster) -> AsyncIterator[Guest]:
    """Somebody on a connection of their own."""
    guest = await Guest.at(house["SOCK001"].endpoint)
    yield guest
    guest.leave()


@pytest.fixture
async def neighbour(house: Cluster) -> AsyncIterator[Guest]:
    """Somebody else in the house, who is served from beginning to end of the test."""
    guest = await Guest.at(house["SOCK001"].endpoint)
    asking = asyncio.create_task(keep_asking(guest))
    yield guest
    assert not asking.done(), "the neighbour was not served throughout"
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await guest.is_served()
    assert guest.all(Goodbye) == []
    guest.leave()


async def keep_asking(guest: Guest) -> None:
    while True:
        await guest.ask(Ping())
        with contextlib.suppress(RequestFailed):
            await guest.ask(Login(username="no-such-player", password=PASSWORD))
        await asyncio.sleep(0.01)
