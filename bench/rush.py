"""The rush: everybody comes at once. Tickets, admission, waits and what it all costs, over real sockets.

Accounts with a refresh token are made beforehand, so that no password is hashed. Then everybody connects and
says hello; logs in as fast as the system takes it (`--at-once` logins under way); waits for the turn; signs
in at once when it comes; and stays. The room opens when all have their tickets, or with --flowing before the
first login. Before the opening the rate is one player a minute, the smallest there is.

The order is that of the scores in the waiting room, which are read while tickets wait: all of them before the
opening, and with --flowing five times a second; one who was admitted before that is placed by `issuedAt`.
"""

import argparse
import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from bench import harness, rush_figures, rush_plot
from bench.harness import Result
from bench.rush_accounts import make_accounts
from bench.rush_crowd import Crowd, crowd
from bench.rush_faults import kill_node, kill_workers
from bench.rush_picture import Picture
from bench.rush_watch import Arrivals, Usage
from bench.system import Settings, System, running_system
from storage.admission import AdmissionSettings
from storage.connections import connect

FILES = 19_000
"""Connections of one process, generators and nodes alike: many systems allow 20,000 files at most."""

RATE_SHARE = 0.017
"""The default rate by players: 1,700 a second for 100,000, so that every rush takes 59 s."""

PATIENCE_S = 60.0
"""Who is not in so long after the last one should be is lost."""

NODE_DIES_AFTER = 1 / 3


@dataclass(frozen=True)
class Plan:
    """What is asked for. `rate` is players a second."""

    players: int
    nodes: int
    workers: int
    rate: float
    at_once: int
    flowing: bool
    kill_workers: bool
    kill_node: bool
    plot: Path | None
    shows: bool

    @property
    def whole_s(self) -> float:
        """How long the admission of all takes at the rate."""
        return self.players / self.rate

    @property
    def generators(self) -> int:
        """How many generator processes there are."""
        return math.ceil(self.players / FILES)

    def settings(self, admit_rate: int) -> Settings:
        """The settings with a rate a minute."""
        return {
            "login.admit_rate": admit_rate,
            "login.pod_count": 1,
            "login.max_queue_length": 2 * self.players,
        }


async def measure(plan: Plan) -> Result:
    """Run the benchmark."""
    machine = harness.machine()
    fewest_nodes = plan.nodes - plan.kill_node
    harness.allow_files(math.ceil(plan.players / min(fewest_nodes, plan.generators)) + harness.SPARE_FILES)
    async with running_system(plan.settings(1), plan.nodes, plan.workers) as system:
        tokens = await make_accounts(system, plan.players)
        async with (
            connect(system.redis_url) as redis,
            crowd(tokens, system.ports, plan.generators, plan.at_once) as people,
        ):
            rush = await _Run(plan, system, redis, people).run()
    if plan.plot is not None:
        plan.plot.write_text(rush_plot.draw(rush))
    figures = {"nodes": plan.nodes, "login_workers": plan.workers, **rush_figures.figures(rush)}
    return Result("rush", figures, rush_figures.goals(rush, figures), machine)


class _Run:
    """One rush from the first connection to the last sign-in."""

    def __init__(self, plan: Plan, system: System, redis: Redis, people: Crowd) -> None:
        self._plan, self._system, self._redis, self._people = plan, system, redis, people
        self._arrivals = Arrivals(redis)
        self._usage = Usage(lambda: {**system.processes.pids, **people.pids, "bench": os.getpid()})
        self._picture = Picture(people, plan.rate)
        self._opened_at = 0.0

    async def run(self) -> rush_figures.Rush:
        plan = self._plan
        before = await self._redis.info("memory")
        async with _going(
            self._usage.keep_looking(), *([self._picture.keep_drawing()] if plan.shows else [])
        ):
            connect_s = await self._timed("connect", "open")
            at_start = self._usage.cpu_s()
            async with _going(self._arrivals.keep_looking(), *self._worker_faults()):
                if plan.flowing:
                    await self._open()
                login_s = await self._timed("log in", "login")
                if not plan.flowing:
                    await self._arrivals.look_at_all()
                    await self._open()
                at_opening = self._usage.cpu_s()
                admission_s = await self._admission()
            at_end = self._usage.cpu_s()
        stories = await self._people.stories()
        after = await self._redis.info("memory")
        commands = await self._redis.info("commandstats")
        return rush_figures.Rush(
            players=plan.players,
            rate=plan.rate,
            has_faults=plan.kill_workers or plan.kill_node,
            opened_at=self._opened_at,
            connect_s=connect_s,
            login_s=login_s,
            stories=stories,
            tickets=await self._arrivals.tickets(story.tid for story in stories if story.tid),
            cpu_s={"login": _less(at_opening, at_start), "admission": _less(at_end, at_opening)},
            phase_s={"login": login_s, "admission": admission_s},
            resident_bytes=self._usage.resident_bytes,
            redis_command_s={
                name.removeprefix("cmdstat_"): each["usec"] / 1e6 for name, each in commands.items()
            },
            redis_before_bytes=before["used_memory"],
            redis_peak_bytes=after["used_memory_peak"],
        )

    async def _timed(self, headline: str, order: str) -> float:
        self._picture.headline = headline
        began_s = time.perf_counter()
        await self._people.ask(order)
        return time.perf_counter() - began_s

    async def _open(self) -> None:
        """Set the rate; now the waits begin."""
        await AdmissionSettings(self._redis).set_rate(self._rate_a_minute, "bench.rush")
        self._opened_at = self._picture.opened_at = time.time()
        await self._people.ask("opened")

    async def _admission(self) -> float:
        self._picture.headline = "wait for their turns"
        faults = []
        if self._plan.kill_node:
            faults.append(kill_node(self._system, NODE_DIES_AFTER * self._plan.whole_s))
        began_s = time.perf_counter()
        async with _going(*faults):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._plan.whole_s + PATIENCE_S):
                    await self._people.ask("finish")
        return time.perf_counter() - began_s

    def _worker_faults(self) -> list[Coroutine[Any, Any, None]]:
        if not self._plan.kill_workers:
            return []
        return [kill_workers(self._system, self._plan.settings(self._rate_a_minute))]

    @property
    def _rate_a_minute(self) -> int:
        return round(self._plan.rate * 60)


@contextlib.asynccontextmanager
async def _going(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have this go on meanwhile. Raises what it raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for error in results:
        if isinstance(error, Exception):
            raise error


def _less(later: dict[str, float], earlier: dict[str, float]) -> dict[str, float]:
    return {name: seconds - earlier.get(name, 0.0) for name, seconds in later.items()}


def _plan() -> tuple[Plan, bool]:
    parser = harness.arguments("rush", "Everybody at the door at once: tickets, admission, waits, costs.")
    parser.add_argument("--players", type=int, default=5_000, help="players (default: 5000)")
    parser.add_argument("--nodes", type=int, help="socket nodes (default: as few as can hold the players)")
    parser.add_argument("--workers", type=int, default=2, help="login workers (default: 2)")
    parser.add_argument(
        "--rate", type=float, help="players admitted a second (default: 1.7 %% of the players)"
    )
    parser.add_argument("--at-once", type=int, default=2_000, help="logins under way (default: 2000)")
    parser.add_argument("--flowing", action="store_true", help="admit from the first login on")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the rush afterwards")
    parser.add_argument("--kill-workers", action="store_true", help="kill -9 a login worker every 5 s")
    parser.add_argument("--kill-node", action="store_true", help="kill -9 a node once")
    given = parser.parse_args()
    if given.players < 1 or given.workers < 1 or given.at_once < 1 or (given.rate or 1) <= 0:
        parser.error("--players, --workers and --at-once are at least 1, --rate is more than 0")
    return _complete(given, parser), given.json


def _complete(given: argparse.Namespace, parser: argparse.ArgumentParser) -> Plan:
    """The plan, with defaults that depend on the number of players."""
    nodes = given.nodes or math.ceil(given.players / FILES) + given.kill_node
    if nodes < 1 + given.kill_node:
        parser.error("--kill-node needs a second node")
    return Plan(
        players=given.players,
        nodes=nodes,
        workers=given.workers,
        rate=given.rate or max(1.0, given.players * RATE_SHARE),
        at_once=given.at_once,
        flowing=given.flowing,
        kill_workers=given.kill_workers,
        kill_node=given.kill_node,
        plot=given.plot,
        shows=not given.json,
    )


if __name__ == "__main__":
    plan, as_json = _plan()
    time_limit_s = 180 + plan.players / 300 + plan.whole_s + PATIENCE_S
    harness.main(lambda: measure(plan), as_json=as_json, time_limit_s=time_limit_s)
