"""`lobbyctl up`: the whole system on one machine, from its stores to its nodes, and a crowd at its door."""

import asyncio
import contextlib
import json
import logging
import os
import resource
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.config import CREDENTIALS_VARIABLE, ConfigError
from runtime.daemon import EXIT_CLEAN, EXIT_ERROR, EXIT_REFUSED
from runtime.secrets import CREDENTIAL, KEY_FILE, Secrets
from runtime.waiting import cancel, until
from scripts.commands import demo
from scripts.commands.child import Child, Failed
from scripts.commands.data_dir import RunsAlready
from scripts.commands.embedded import EmbeddedValkey
from scripts.commands.plan import STATUS, Options, Plan, check_ports, plan, socket_address
from scripts.commands.programs import Programs
from scripts.commands.scaler import Scaler
from scripts.commands.screen import Screen
from scripts.commands.supervised import Supervised
from scripts.commands.supervisor import Supervisor
from storage.connections import connect
from storage.database import Database
from storage.groups import Groups
from storage.servers import Servers

PATIENCE_S = 10.0
"""How often people are told what a start waits for."""


async def live(options: Options) -> int:
    """Start everything and keep it alive until a signal. Answers the exit code; raises ConfigError."""
    planned = plan(options)
    planned.data_dir.make()
    _log_to(planned.data_dir.logs / "lobbyctl.log")
    screen = Screen(is_stderr=planned.as_json)
    try:
        async with planned.data_dir.locked(screen.say) as lock:
            await check_ports(planned)
            return await System(planned, screen, lock).live()
    except RunsAlready as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    finally:
        screen.end()


class System:
    """A running system: its processes, and what the terminal and endpoints.json say of them."""

    def __init__(self, planned: Plan, screen: Screen, lock: int) -> None:
        """Raises ConfigError."""
        config = planned.config
        self._plan = planned
        self._screen = screen
        self._data_dir = planned.data_dir
        self._valkey = None if config.redis.url else EmbeddedValkey(planned.data_dir)
        self._redis_url = self._valkey.url if self._valkey else config.redis.url
        sqlite = f"sqlite+aiosqlite:///{self._data_dir.path / 'lobbyd.sqlite3'}"
        self._database_url = config.database.url or sqlite
        try:
            self._redis = connect(self._redis_url)
        except ValueError as error:
            raise ConfigError(f"redis.url: {error}") from None
        self._programs = Programs(
            Servers(self._redis),
            planned.config_file,
            {**planned.overrides, **self._settings()},
            self._data_dir.logs,
            config.socketd.drain_timeout_s,
        )
        self._supervisor = Supervisor(self, lock)
        self._ending = asyncio.Event()
        self._scaling: asyncio.Task[None] | None = None

    async def live(self) -> int:
        """Start, keep alive, and at a signal end it all. Answers the exit code."""
        self._data_dir.endpoints.unlink(missing_ok=True)
        _raise_file_limit()
        self._listen_to_signals()
        code = EXIT_CLEAN
        try:
            await until(self._ending, self._run())
        except Failed as failed:
            code = failed.code
            self._tell_failure(failed)
        finally:
            ended_well = await self._stop()
        return code or (EXIT_CLEAN if ended_well else EXIT_ERROR)

    # What the supervisor calls.

    def started(self, child: Child) -> None:
        """A process has a new pid."""
        if self._data_dir.endpoints.exists():
            self._write_endpoints()

    def ready(self, child: Child, again: bool) -> None:
        """A process is ready."""
        where = self._programs.sockets.get(child.process_id)
        if where is not None and len(self._programs.sockets) == len(self._plan.ports):
            self._write_endpoints()
        if again:
            self._screen.say(f"{child.process_id} is back", "green")
        elif where is not None:
            self._screen.say(f"{child.process_id} READY on {socket_address(*where)}", "bold green")
        else:
            self._screen.say(f"{child.process_id} is ready", "green")

    def died(self, child: Child, end: str, words: Sequence[str], pause_s: float) -> None:
        """A process died, and is started again after a pause."""
        self._screen.say(f"{child.process_id} {end}; starting it again in {pause_s:g} s", "bold red")
        for line in words:
            self._screen.say(f"    {line}", "red")

    def stopped(self, child: Child, end: str | None) -> None:
        """A process has ended as it was asked to; `end` says how, if not well."""
        self._screen.say(f"{child.process_id} {end or 'has stopped'}", "" if end is None else "bold red")

    def left(self, child: Child) -> None:
        """A process has ended as somebody else asked it to."""
        self._programs.sockets.pop(child.process_id, None)
        self._write_endpoints()
        self._screen.say(f"{child.process_id} was drained and stays away", "bold")

    # The rest.

    def _settings(self) -> dict[str, str]:
        """What the processes must be told beyond what people have set. Raises ConfigError."""
        auth = self._plan.config.auth
        Secrets.load(auth, environ=os.environ, data_dir=self._data_dir.path)
        settings = {"redis.url": self._redis_url, "database.url": self._database_url}
        if not self._plan.config.portal.storage_url:
            settings["portal.storage_url"] = str(self._data_dir.path / "files")
        credentials = os.environ.get(CREDENTIALS_VARIABLE)
        if not (auth.secret or auth.secret_file or (credentials and Path(credentials, CREDENTIAL).exists())):
            settings["auth.secret_file"] = str(self._data_dir.path / KEY_FILE)
        return settings

    async def _run(self) -> None:
        nagging = asyncio.create_task(self._tell_who_is_awaited())
        try:
            await self._start()
        finally:
            nagging.cancel()
        if self._plan.as_json:
            print(json.dumps({"dataDir": str(self._data_dir.path), **self._whereabouts()}), flush=True)
        if not self._plan.players:
            self._say_how_to_go_on()
            return await self._supervisor.watch()
        showing = asyncio.create_task(self._show_demo())
        try:
            await self._supervisor.watch()
        finally:
            showing.cancel()
            await asyncio.wait({showing})

    async def _start(self) -> None:
        planned = self._plan
        counts = dict(planned.workers)
        redis = "embedded Valkey" if self._valkey else "the configured Redis"
        database = "the configured database" if planned.config.database.url else "SQLite"
        self._screen.say(f"lobbyd starts in {self._data_dir.path} on {redis} and {database}", "bold")
        if self._valkey is not None:
            await self._supervisor.start([self._valkey.program()])
        status = [self._programs.worker(STATUS, number + 1) for number in range(counts.pop(STATUS))]
        workers = [
            self._programs.worker(kind, number + 1) for kind in counts for number in range(counts[kind])
        ]
        await self._supervisor.start(status, workers)
        # Last, since a node that is READY promises that its players will be served.
        nodes = [
            self._programs.node(number, planned.host, port)
            for number, port in enumerate(planned.ports, start=1)
        ]
        await self._supervisor.start(nodes)
        if planned.autoscale:
            driver = Supervised(self._supervisor, self._programs, self._write_endpoints)
            name = f"lobbyctl up (process {os.getpid()} of {os.uname().nodename})"
            scaler = Scaler(self._redis, driver, self._screen.say, name, is_dry=planned.dry_run)
            self._scaling = asyncio.create_task(scaler.run())

    async def _tell_who_is_awaited(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE_S)
            awaited = [
                child.process_id for child in self._supervisor.children if not child.was_ready.is_set()
            ]
            if awaited:
                self._screen.say(f"still waiting for {', '.join(awaited)}; logs are in {self._data_dir.logs}")

    async def _join(self, group_id: str, user_ids: Sequence[str]) -> None:
        database = Database(self._database_url)
        try:
            await Groups(database, self._redis).add_many(group_id, user_ids)
        finally:
            await database.close()

    async def _show_demo(self) -> None:
        """Show the crowd. It must not cost the system anything, not even by a mistake of its own."""
        crowd = demo.Demo(
            self._plan.players,
            list(self._programs.sockets.values()),
            self._plan.config,
            self._data_dir.password("demo.password"),
            self._join,
        )
        try:
            if crowd.is_short:
                self._screen.say(
                    "Only one loopback address here: the limits of one address make it a small crowd"
                )
            await crowd.run(self._screen)
            self._say_how_to_go_on()
            await asyncio.Event().wait()
        except Exception as error:
            logging.exception("the demo failed")
            self._screen.say(
                f"The demo failed ({type(error).__name__}: {error}); the system is unharmed", "red"
            )
        finally:
            crowd.leave()

    def _say_how_to_go_on(self) -> None:
        elsewhere = "" if self._data_dir.is_default else f" --data-dir {self._data_dir.path}"
        self._screen.say("The system stays up.", "bold")
        self._screen.say(f"  look   {_lobbyctl()} status{elsewhere}")
        self._screen.say(f"  stop   Ctrl-C, or kill {os.getpid()}")

    def _tell_failure(self, failed: Failed) -> None:
        self._screen.end()
        for line in (str(failed), *(f"    {line}" for line in failed.words)):
            print(line, file=sys.stderr)

    async def _stop(self) -> bool:
        self._screen.end()
        self._screen.say("Stopping: nodes, workers, stores. A second signal stops at once.", "bold")
        if self._scaling is not None:
            await cancel({self._scaling})
        ended_well = await self._supervisor.stop()
        self._data_dir.endpoints.unlink(missing_ok=True)
        await self._redis.aclose()
        return ended_well

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._ending.is_set():
            self._ending.set()
            return
        self._screen.end()
        self._supervisor.kill()
        os._exit(128 + number)

    def _write_endpoints(self) -> None:
        found = {**self._whereabouts(), "redis": self._redis_url, "database": self._database_url}
        try:
            self._data_dir.write(self._data_dir.endpoints, json.dumps(found, indent=2) + "\n")
        except OSError as error:  # what runs matters more than what is said of it
            self._screen.say(f"{self._data_dir.endpoints} cannot be written: {error}", "bold red")

    def _whereabouts(self) -> dict[str, Mapping[str, object]]:
        return {
            "sockets": {
                name: socket_address(*where) for name, where in sorted(self._programs.sockets.items())
            },
            "pids": {child.process_id: child.life.pid for child in self._supervisor.children if child.life},
        }


def _log_to(file: Path) -> None:
    """Keep what libraries log out of the picture on the terminal."""
    logging.basicConfig(filename=file, level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _raise_file_limit() -> None:
    """Allow this process and its children as many connections as the machine does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS says "unlimited" and allows less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _lobbyctl() -> str:
    """How this command line is called from here."""
    return "lobbyctl" if shutil.which("lobbyctl") else os.path.relpath(Path(__file__).parents[1] / "lobbyctl")
