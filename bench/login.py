"""Logins by password: how many a second beside bare bcrypt, and what they cost those who only ping.

Each login is another account's, at cost 10, with 64 under way at once. The limit is `bcrypt.checkpw` in as
many threads as there are cores, which yield to other work as those of the login worker do: both sides then
compete alike with whatever else the machine does. Both take turns. Pings go over connections of their own,
first with nothing else to do, then while the logins run.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median

import bcrypt

from bench import harness
from bench.harness import Result, at_least, at_most, quantile, rounded
from bench.system import HOST, System, running_system
from client import Connection
from protocol.messages.auth import Login
from protocol.messages.connection import Ping
from runtime.secrets import Secrets
from storage.connections import connect
from storage.database import Database
from storage.users import NewUser, Users

COST = 10
AT_ONCE = 64
NICENESS = 10
PASSWORD = "correct horse battery"
PINGING_CONNECTIONS = 20
PING_PAUSE_S = 0.1
SETTLE_S = 0.5
IDLE_SHARE = 0.3
"""Of a round's length, in which there are only pings: they are many enough soon."""

FASTEST_HASH_S = 0.03
"""No core checks a password of this cost faster; it says how many accounts a run can use up."""

TIME_LIMIT_S = 300.0

SETTINGS = {
    "auth.bcrypt_cost": COST,
    "login.admit_rate": 10_000_000,
    "login.max_queue_length": 10_000_000,
}


@dataclass
class Pings:
    """Pings at a steady pace over some connections; `took_s` is how long each took, in seconds."""

    connections: Sequence[Connection]
    took_s: list[float]

    @contextlib.asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Ping for as long as the context lasts."""
        tasks = [asyncio.create_task(self._ping(connection)) for connection in self.connections]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _ping(self, connection: Connection) -> None:
        while True:
            start_s = time.perf_counter()
            await connection.request(Ping())
            self.took_s.append(time.perf_counter() - start_s)
            await asyncio.sleep(PING_PAUSE_S)


async def _per_second(work: Sequence[Callable[[], Awaitable[object]]], seconds: float) -> float:
    """Do each work again and again, all at the same time; how many ended in a second, once under way."""
    ended = 0
    going_on = True

    async def repeat(once: Callable[[], Awaitable[object]]) -> None:
        nonlocal ended
        while going_on:
            await once()
            ended += 1

    async with asyncio.TaskGroup() as group:
        for once in work:
            group.create_task(repeat(once))
        await asyncio.sleep(SETTLE_S)
        ended, start_s = 0, time.perf_counter()
        await asyncio.sleep(seconds)
        per_second = ended / (time.perf_counter() - start_s)
        going_on = False
    return per_second


async def _bare(seconds: float, password_hash: bytes) -> float:
    loop = asyncio.get_running_loop()
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads, initializer=_yield_to_others) as pool:

        async def check() -> None:
            await loop.run_in_executor(pool, bcrypt.checkpw, PASSWORD.encode(), password_hash)

        return await _per_second([check] * AT_ONCE, seconds)


def _yield_to_others() -> None:
    if sys.platform == "linux":  # as in the login worker
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


async def _add_accounts(system: System, count: int, password_hash: bytes) -> Iterator[str]:
    """Make so many accounts with one password between them; their names."""
    database = Database(system.database_url)
    names = [f"player{number:06}" for number in range(count)]
    async with connect(system.redis_url) as redis:
        users = Users(database, redis, Secrets(system.secret.encode()))
        for name in names:
            new = NewUser(
                user_id=name,
                email=f"{name}@example.com",
                nickname=name,
                password_hash=password_hash.decode(),
                registration_id=name,
                created_at=int(time.time() * 1000),
            )
            await users.add(new)
    await database.close()
    return iter(names)


async def measure(rounds: int, seconds: float) -> Result:
    """Run the benchmark: `rounds` of `seconds` for each side."""
    machine = harness.machine()
    password_hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(COST))
    cores = os.cpu_count() or 1
    accounts = rounds * (AT_ONCE + int((seconds + SETTLE_S) * cores / FASTEST_HASH_S))
    ours: list[float] = []
    limit: list[float] = []
    async with running_system(SETTINGS) as system, _connections(system) as (logging_in, pinging):
        names = await _add_accounts(system, accounts, password_hash)
        idle, busy = Pings(pinging, []), Pings(pinging, [])

        logins = [partial(_log_in, connection, names) for connection in logging_in]
        for _ in range(rounds):
            async with idle.going():
                await asyncio.sleep(IDLE_SHARE * seconds)
            async with busy.going():
                ours.append(await _per_second(logins, seconds))
            limit.append(await _bare(seconds, password_hash))
    return _result(ours, limit, idle.took_s, busy.took_s, machine)


async def _log_in(connection: Connection, names: Iterator[str]) -> None:
    await connection.request(Login(username=next(names), password=PASSWORD))


@contextlib.asynccontextmanager
async def _connections(system: System) -> AsyncIterator[tuple[list[Connection], list[Connection]]]:
    """Connections to log in over, and others to ping over."""
    count = AT_ONCE + PINGING_CONNECTIONS
    opened = [await Connection.open(HOST, system.ports[0], name="bench") for _ in range(count)]
    try:
        yield opened[:AT_ONCE], opened[AT_ONCE:]
    finally:
        for connection in opened:
            connection.close()


def _result(
    ours: list[float],
    limit: list[float],
    idle_s: list[float],
    busy_s: list[float],
    machine: dict[str, str | float],
) -> Result:
    figures = {
        "ours_logins_per_s": rounded(median(ours)),
        "limit_checks_per_s": rounded(median(limit)),
        "logins_ratio": rounded(median(ours) / median(limit)),
        "idle_ping_p50_ms": rounded(quantile(idle_s, 0.5) * 1000),
        "idle_ping_p99_ms": rounded(quantile(idle_s, 0.99) * 1000),
        f"ping_p50_with_{AT_ONCE}_logins_ms": rounded(quantile(busy_s, 0.5) * 1000),
        f"ping_p99_with_{AT_ONCE}_logins_ms": rounded(quantile(busy_s, 0.99) * 1000),
        "pings": len(busy_s),
    }
    goals = [
        at_least("logins a second beside bare bcrypt", figures["logins_ratio"], 0.9),
        at_most(
            f"ms of a ping (p99) with {AT_ONCE} logins", figures[f"ping_p99_with_{AT_ONCE}_logins_ms"], 20
        ),
    ]
    return Result("login", figures, goals, machine)


if __name__ == "__main__":
    parser = harness.arguments("login", "Logins by password beside bare bcrypt, and pings meanwhile.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (default: 3)")
    given = parser.parse_args()
    harness.main(lambda: measure(given.rounds, given.seconds), as_json=given.json, time_limit_s=TIME_LIMIT_S)
