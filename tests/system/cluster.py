"""lobbyd as it runs in production: its processes, each started, frozen, ended or killed by itself.

A process gets its settings through LOBBYD_ variables and writes its log into a file of the cluster's
folder. Everything here blocks its caller for as long as it takes.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import psutil
import redis

from client import Endpoint
from storage import keys
from tests.servers import HOST, free_port

START_DEADLINE_S = 90.0
END_DEADLINE_S = 90.0
OPERATION_S = 60.0
POLL_S = 0.02

SECRET = "a master secret that only the tests know"

Settings = Mapping[str, object]

LENIENT: Settings = {
    "auth.secret": SECRET,
    "auth.bcrypt_cost": 4,
    "limits.connections_per_ip": 100_000,
    "limits.registrations_per_ip_per_hour": 1_000_000,
    "limits.refused_registrations_per_ip_per_hour": 1_000_000,
    "limits.requests_per_second": 10_000,
    "limits.passwords_per_ip": 1_000,
    "limits.failed_logins_per_ip_per_minute": 1_000_000,
    "limits.failed_logins_per_account_per_hour": 1_000_000,
    "login.admit_rate": 60_000,
    "login.pod_count": 1,
    "log.format": "json",
}
"""What tests that are not about speed or limits want: quick hashes, and nobody turned away."""


class ClusterError(Exception):
    """A process did not do what a test waited for; the message has its log."""


def until(condition: Callable[[], bool], what: str, deadline_s: float = START_DEADLINE_S) -> None:
    """Return once the condition holds. Raises ClusterError when it does not in time."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end_s:
            raise ClusterError(f"Not within {deadline_s:g} s: {what}")
        time.sleep(POLL_S)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """`until` for a test whose own connections must live on meanwhile."""
    await asyncio.to_thread(until, condition, what)


class Process:
    """One process of the system. `port` is where a node listens, None for a worker."""

    def __init__(
        self, name: str, arguments: list[str], environment: dict[str, str], log: Path, port: int | None
    ) -> None:
        self.name = name
        self.port = port
        self._log = log
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=log.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def endpoint(self) -> Endpoint:
        """Where a node listens."""
        assert self.port is not None, f"{self.name} is no node"
        return HOST, self.port

    @property
    def log(self) -> str:
        """What this process has logged."""
        return self._log.read_bytes()[self._log_start :].decode(errors="replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that killed it."""
        return self._process.poll()

    def asked_to_end(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """End the process as its operator would. Answers its exit code."""
        self.asked_to_end()
        return self.wait()

    def kill(self) -> None:
        """End the process as a crash would. Does nothing when it has ended."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop the process where it is; its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, deadline_s: float = END_DEADLINE_S) -> int:
        """Wait for the end. Answers the exit code. Raises ClusterError when it does not come."""
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{self.name} did not end:\n{self.log}") from None


class Cluster:
    """Any number of nodes and workers on one Redis and one database.

    `settings` are for all processes, over the LENIENT ones; a value of None leaves a setting to its default.
    """

    def __init__(self, folder: Path, redis_url: str, database_url: str, settings: Settings = LENIENT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=5.0)
        self.settings: dict[str, object] = {
            **LENIENT,
            "redis.url": redis_url,
            "database.url": database_url,
            "portal.storage_url": folder / "files",
            **settings,
        }
        self.processes: dict[str, Process] = {}
        self._all: list[Process] = []
        self._ports: dict[str, int] = {}
        self._numbers = itertools.count(1)

    # Starting.

    def start(self, *, nodes: int = 1, logins: int = 1) -> "Cluster":
        """Start a status manager, login workers and nodes together, and wait until all are READY."""
        started = [self.start_worker("status", wait=False)]
        started += [self.start_worker("login", number, wait=False) for number in range(1, logins + 1)]
        started += [self.start_node(wait=False) for _ in range(nodes)]
        for process in started:
            self.wait_for(process, "READY")
        return self

    def start_node(
        self,
        number: int | None = None,
        settings: Settings | None = None,
        *,
        port: int | None = None,
        program: str = "socketd",
        wait: bool = True,
    ) -> Process:
        """Start the node SOCK001, SOCK002 …, or the first that there has not been.

        It gets the same port each time where none is given. `program` is a module or a script.
        """
        number = number or next(self._numbers)
        name = f"SOCK{number:03d}"
        if port is None:
            port = self._ports[name] = self._ports.get(name) or free_port()
        return self._start(name, program, ["--server-id", name], settings, port=port, wait=wait)

    def start_worker(
        self,
        kind: str,
        number: int = 1,
        settings: Settings | None = None,
        *,
        program: str = "workers",
        wait: bool = True,
    ) -> Process:
        """Start the worker `kind`-`number`; `program` is a module or a script."""
        name = f"{kind}-{number}"
        return self._start(name, program, [name], settings, port=None, wait=wait)

    def _start(
        self,
        name: str,
        program: str,
        arguments: list[str],
        settings: Settings | None,
        *,
        port: int | None,
        wait: bool,
    ) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LOBBYD_")}
        environment |= _variables({**self.settings, "socketd.port": port, **(settings or {})})
        runs = [program] if program.endswith(".py") else ["-m", program]
        process = Process(name, [*runs, *arguments], environment, self.folder / f"{name}.log", port)
        self.processes[name] = process
        self._all.append(process)
        if wait:
            self.wait_for(process, "READY")
        return process

    def with_one_request_more(self, module: str, *, owner: str) -> str:
        """A program: `module` of a release that declares `probe.request`, for who is signed in."""
        program = self.folder / f"{module}_of_{owner}.py"
        program.write_text(
            "import runpy\n"
            "from protocol.messages.declaration import Message, Nothing, request\n"
            f"@request('probe.request', owner='{owner}', reply=Nothing)\n"
            "class Probe(Message, frozen=True):\n"
            "    pass\n"
            f"runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        )
        return str(program)

    # Looking.

    def __getitem__(self, name: str) -> Process:
        return self.processes[name]

    @property
    def nodes(self) -> list[Process]:
        """The nodes, as they were started."""
        return [process for process in self.processes.values() if process.port is not None]

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where the nodes listen."""
        return [node.endpoint for node in self.nodes]

    def status(self, process: Process) -> dict[str, str]:
        """The process's status hash."""
        return cast("dict[str, str]", self.redis.hgetall(keys.server_status(process.name)))

    def wait_for(self, process: Process, status_code: str) -> dict[str, str]:
        """Wait until the process's status is `status_code`. Answers the hash.

        Raises ClusterError when it is not in time, or when the process has ended before READY.
        """

        def reached() -> bool:
            found = self.status(process)
            if status_code == "READY" and process.exit_code is not None:
                raise ClusterError(
                    f"{process.name} ended with {process.exit_code} before READY:\n{process.log}"
                )
            return found.get("statusCode") == status_code and (
                status_code != "READY" or found.get("pid") == str(process.pid)
            )

        until(reached, f"{process.name} {status_code}, it is {self.status(process)}")
        return self.status(process)

    def memory_bytes(self, process: Process) -> int:
        """A process's resident memory."""
        return psutil.Process(process.pid).memory_info().rss

    def logs(self) -> Iterator[tuple[str, str]]:
        """Each process's name and log, of those that were replaced too."""
        for process in self._all:
            yield f"{process.name} (process {process.pid})", process.log

    # Operating.

    def operate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `lobbyctl` as the cluster's operator would."""
        file = self.folder / "operator.toml"
        file.touch()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LOBBYD_")}
        return subprocess.run(
            [Path(sys.executable).with_name("lobbyctl"), *words, "--config", file],
            env=environment | _variables(self.settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=OPERATION_S,
            check=False,
        )

    # Ending.

    def kill(self) -> None:
        """End every process that still runs, at once."""
        for process in self._all:
            process.kill()
        self.redis.close()


def _variables(settings: Settings) -> dict[str, str]:
    return {
        "LOBBYD_" + name.upper().replace(".", "__"): str(value)
        for name, value in settings.items()
        if value is not None
    }
