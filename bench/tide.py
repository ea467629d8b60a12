"""The tide: a load that rises and falls, and the workers that come and go with it, over real sockets.

`lobbyctl up --autoscale` begins with one login worker. Players make accounts, which costs a worker a password
hash each, at a rate that rises from a few a second to more than a core can bear, stays there, and falls
again. The rate does not heed the answers: what is late is asked for all the same. What was answered `BUSY` or
`TIMEOUT` is asked again with the same idempotency key.

Nothing is lost when each request is answered and each answered account is in the database, once. Times are
shortened, so that hours of an evening pass in minutes.
"""

import asyncio
import bisect
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bench import harness, tide_plot
from bench.harness import CannotMeasure, Result, at_least, at_most, quantile
from bench.system import POLL_S, START_TIMEOUT_S, Processes, temporary_processes
from bench.tide_top import LOBBYCTL, picture_of_top
from client import ClientError, Connection, RequestFailed
from protocol.messages.auth import Register
from storage.connections import connect
from storage.database import Database
from storage.monitoring import Monitoring
from storage.scaling import Scaling
from storage.tables import users

KIND = "login"
CALM, PEAK = 2.0, 32.0
SHAPE = ((0.0, CALM), (15.0, CALM), (25.0, PEAK), (70.0, PEAK), (90.0, CALM), (150.0, CALM))
"""The load in accounts a second, by seconds; in between it is a straight line."""

CONNECTIONS = 8
PATIENCE_S = 60.0
AGAIN_S = 0.5
LOOK_S = 0.5
PICTURES_AT_S = {"flood": 55.0, "ebb": 138.0}
TIME_LIMIT_S = 300.0

SETTINGS = {
    "auth.bcrypt_cost": 10,
    "status.heartbeat_s": 1,
    "monitoring.every_s": 1,
    "scaling.every_s": 2,
    "scaling.more_after_s": 8,
    "scaling.fewer_after_s": 15,
    "limits.requests_per_second": 10_000_000,
    "limits.registrations_per_ip_per_hour": 1_000_000,
    "limits.passwords_per_ip": 1_000_000,
}


class Endpoints(msgspec.Struct):
    """What `lobbyctl up` says of itself."""

    sockets: dict[str, str]
    redis: str
    database: str


@dataclass(frozen=True)
class Look:
    """What was seen at one moment, in seconds since the beginning. `load` is a ratio."""

    at_s: float
    workers: int
    wanted: int
    load: float
    asked: int
    answered: int


@dataclass(frozen=True)
class Change:
    """A decision to have another number of workers, and why."""

    at_s: float
    now: int
    wanted: int
    reason: str


@dataclass
class Tide:
    """All that was seen."""

    looks: list[Look] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    asked: int = 0
    again: int = 0
    lost: list[str] = field(default_factory=list)
    accounts: int = 0


def rate(at_s: float) -> float:
    """The load at a moment, in accounts a second."""
    number = min(bisect.bisect_right([each for each, _ in SHAPE], at_s), len(SHAPE) - 1)
    (x0, y0), (x1, y1) = SHAPE[number - 1], SHAPE[number]
    return y0 + (y1 - y0) * (at_s - x0) / (x1 - x0)


async def measure(plot: Path | None, top: Path | None) -> Result:
    """Run the benchmark."""
    machine = harness.machine()
    tide = Tide()
    async with system() as (endpoints, data_dir), connect(endpoints.redis) as redis:
        began_s = time.monotonic()
        looking = asyncio.create_task(_look(redis, tide, began_s))
        picturing = asyncio.create_task(_picture(data_dir, top, began_s)) if top is not None else None
        try:
            await _flow(endpoints, tide, began_s)
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        if picturing is not None:
            await picturing
        tide.accounts = await _accounts(endpoints.database)
    if plot is not None:
        _write(plot, tide_plot.draw(tide, SHAPE))
    return _result(tide, machine)


def _write(file: Path, drawing: str) -> None:
    file.write_text(drawing, "utf-8")


def _result(tide: Tide, machine: dict[str, str | float]) -> Result:
    answered, workers = len(tide.took_s), [look.workers for look in tide.looks]
    figures = {
        "asked": tide.asked,
        "answered": answered,
        "asked_again": tide.again,
        "answered_p50_ms": 1000 * quantile(tide.took_s, 0.5),
        "answered_p99_ms": 1000 * quantile(tide.took_s, 0.99),
        **{
            f"{change.at_s:05.1f} s: {change.now} -> {change.wanted} ({change.reason})": change.wanted
            for change in tide.changes
        },
    }
    goals = [
        at_most("requests lost", len(tide.lost) + tide.asked - answered, 0),
        at_most("accounts that are not as answered", abs(tide.accounts - answered), 0),
        at_least("workers at the most", max(workers), 3),
        at_most("workers in the end", workers[-1], 1),
    ]
    return Result("tide", figures, goals, machine)


@contextlib.asynccontextmanager
async def system() -> AsyncIterator[tuple[Endpoints, Path]]:
    """A running `lobbyctl up --autoscale`, and its data directory. Raises CannotMeasure."""
    with temporary_processes() as (directory, processes):
        data_dir = directory / "data"
        command = [LOBBYCTL, "up", "--no-demo", "--port", "0", "--autoscale", "--data-dir", str(data_dir)]
        for name, value in SETTINGS.items():
            command += ["--set", f"{name}={value}"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LOBBYD_")}
        processes.start("lobbyctl", command, environ)
        yield await _endpoints(data_dir / "endpoints.json", processes), data_dir
        processes.check()


async def _endpoints(path: Path, processes: Processes) -> Endpoints:
    end_s = time.monotonic() + START_TIMEOUT_S
    while (found := _read(path)) is None:
        processes.check()
        if time.monotonic() > end_s:
            tail = processes.tail("lobbyctl")
            raise CannotMeasure(f"lobbyctl up was not ready within {START_TIMEOUT_S:g} s:\n{tail}")
        await asyncio.sleep(POLL_S)
    return found


def _read(path: Path) -> Endpoints | None:
    return msgspec.json.decode(path.read_bytes(), type=Endpoints) if path.exists() else None


async def _flow(endpoints: Endpoints, tide: Tide, began_s: float) -> None:
    """Ask at the rate of the moment, and wait for the last answers."""
    host, _, port = endpoints.sockets["SOCK001"].rpartition(":")
    connections = [await Connection.open(host, int(port)) for _ in range(CONNECTIONS)]
    asking: set[asyncio.Task[None]] = set()
    due, at_s = 0.0, 0.0
    while at_s < SHAPE[-1][0]:
        before_s, at_s = at_s, time.monotonic() - began_s
        due += rate(at_s) * (at_s - before_s)
        while tide.asked < due:
            task = asyncio.create_task(
                _ask(connections[tide.asked % CONNECTIONS], tide, f"player{tide.asked}")
            )
            tide.asked += 1
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.sleep(0.01)
    if asking:
        await asyncio.wait(asking, timeout=PATIENCE_S)
    for connection in connections:
        connection.close()


async def _ask(connection: Connection, tide: Tide, name: str) -> None:
    """Make an account, however often that has to be asked for."""
    request = Register(
        username=name, password="correct horse battery", email=f"{name}@example.com", nickname=name
    )
    start_s = time.monotonic()
    while True:
        try:
            await connection.request(request, key=name, timeout_s=PATIENCE_S)
        except RequestFailed as refusal:
            if refusal.code not in {"BUSY", "TIMEOUT"}:
                return tide.lost.append(str(refusal))
            tide.again += 1
            await asyncio.sleep(AGAIN_S)
        except (ClientError, TimeoutError) as error:
            return tide.lost.append(str(error))
        else:
            return tide.took_s.append(time.monotonic() - start_s)


async def _look(redis: Redis, tide: Tide, began_s: float) -> None:
    """Note how many workers there are, and what is decided, again and again. Runs as a task."""
    scaling, monitoring = Scaling(redis), Monitoring(redis)
    noted = 0
    while True:
        decision = (await scaling.decisions()).get(KIND)
        sample = await monitoring.sample()
        at_s = time.monotonic() - began_s
        ready = [each for each in sample.servers if each.server_type == KIND.upper()]
        workers = sum(each.status_code == "READY" for each in ready)
        if decision is not None:
            look = Look(at_s, workers, decision.wanted, decision.load, tide.asked, len(tide.took_s))
            tide.looks.append(look)
            if decision.changed_at > noted:
                noted = decision.changed_at
                tide.changes.append(Change(at_s, decision.now, decision.wanted, decision.reason))
        await asyncio.sleep(LOOK_S)


async def _picture(data_dir: Path, folder: Path, began_s: float) -> None:
    for name, at_s in PICTURES_AT_S.items():
        await asyncio.sleep(began_s + at_s - time.monotonic())
        await picture_of_top(data_dir, folder / f"top-at-{name}.svg")


async def _accounts(url: str) -> int:
    """How many accounts the database has."""

    async def count(connection: AsyncConnection) -> int:
        return int((await connection.execute(select(func.count()).select_from(users))).scalar_one())

    database = Database(url, pool_size=1)
    try:
        return await database.read(count)
    finally:
        await database.close()


if __name__ == "__main__":
    arguments = harness.arguments("tide", __doc__.split("\n")[0])
    arguments.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw what happened")
    arguments.add_argument(
        "--top", type=Path, metavar="FOLDER", help="picture `lobbyctl top` at flood and at ebb there"
    )
    given = arguments.parse_args()
    harness.main(lambda: measure(given.plot, given.top), as_json=given.json, time_limit_s=TIME_LIMIT_S)
