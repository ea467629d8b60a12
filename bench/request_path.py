"""The cheapest request through a worker: requests a second and the time that one takes, beside a bare loop.

Ours: `queue.cancel` of a ticket whose signature is wrong. It is answered 404 by the login worker from its
signature alone, so everything that is measured is the path: socket, frame, checks, queue, worker, queue,
frame, socket. The limit is `bench.bare_loop` on the same Valkey. Both are closed loops with one request
in flight for each connection or caller, and take turns.
"""

import contextlib
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from statistics import median

import psutil

from bench import bare_loop, harness
from bench.callers import SETTLE_S, Caller, Meter
from bench.harness import CannotMeasure, Result, at_least, at_most, quantile, rounded
from bench.system import HOST, System, running_system, temporary_processes
from protocol.messages.waiting import Cancel

CONNECTIONS = (1, 50, 500)
MESSAGE = Cancel(tid=f"tid_{'A' * 22}.{'B' * 22}", client_id=f"client_{'C' * 22}")
NOT_FOUND = 404
TIME_LIMIT_S = 240.0
CORES_FOR_GOAL = 4
WARM_UP_S = 0.5


@dataclass(frozen=True)
class Measured:
    """One round: answers a second, the median time of one in ms, and what one cost each process in µs."""

    per_second: float
    p50_ms: float
    cpu_us: dict[str, float]


Rounds = dict[int, list[Measured]]
"""By number of connections."""


class Load:
    """Connections to a node, opened as they are needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._meter = Meter()
        self._callers: list[Caller] = []

    async def measure(self, connections: int, seconds: float) -> tuple[float, list[float]]:
        """Load with so many connections. Raises CannotMeasure when a request fails."""
        while len(self._callers) < connections:
            caller = await Caller.open(self._meter, HOST, self._port, MESSAGE, NOT_FOUND)
            self._callers.append(caller)
        measured = await self._meter.measure(self._callers[:connections], seconds)
        for caller in self._callers:
            if caller.failure is not None:
                raise CannotMeasure(f"A connection failed: {caller.failure}.")
        return measured


class Cpu:
    """What processes use of the processors: steadier than a rate where others use them too."""

    def __init__(self, system: System) -> None:
        pids = system.pids
        self._processes = {
            "socketd": psutil.Process(pids["SOCK001"]),
            "login_worker": psutil.Process(pids["login-1"]),
            "valkey": psutil.Process(pids["valkey"]),
            "generator": psutil.Process(),
        }

    def used_s(self) -> dict[str, float]:
        """Seconds of a core since each began."""
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: each.user + each.system for name, each in times.items()}


@contextlib.asynccontextmanager
async def _bare(url: str) -> AsyncIterator[bare_loop.Front]:
    with temporary_processes() as (_, processes):
        processes.start("back", [sys.executable, "-m", "bench.bare_loop", url])
        front = bare_loop.Front(url)
        await front.start()
        try:
            yield front
        finally:
            await front.stop()


async def measure(rounds: int, seconds: float) -> Result:
    """Run the benchmark: `rounds` of `seconds` for each number of connections and each side."""
    machine = harness.machine()
    harness.allow_files(2 * max(CONNECTIONS) + harness.SPARE_FILES)
    ours: Rounds = defaultdict(list)
    limit: Rounds = defaultdict(list)
    async with running_system({}) as system, _bare(system.redis_url) as front:
        load, cpu = Load(system.ports[0]), Cpu(system)
        for connections in CONNECTIONS:
            await load.measure(connections, WARM_UP_S)
            await front.measure(connections, WARM_UP_S)
            for _ in range(rounds):
                before = cpu.used_s()
                per_second, took_s = await load.measure(connections, seconds)
                asked = per_second * (seconds + SETTLE_S)
                cost = {name: (used - before[name]) / asked * 1e6 for name, used in cpu.used_s().items()}
                ours[connections].append(Measured(per_second, quantile(took_s, 0.5) * 1000, cost))
                per_second, took_s = await front.measure(connections, seconds)
                limit[connections].append(Measured(per_second, quantile(took_s, 0.5) * 1000, {}))
    figures = _figures(ours, limit)
    return Result("request_path", figures, _goals(figures), machine)


def _figures(ours: Rounds, limit: Rounds) -> dict[str, float]:
    figures: dict[str, float] = {}
    for count in CONNECTIONS:
        for side, rounds in (("ours", ours[count]), ("limit", limit[count])):
            figures[f"{side}_{count}_requests_per_s"] = rounded(median(each.per_second for each in rounds))
            figures[f"{side}_{count}_p50_ms"] = rounded(median(each.p50_ms for each in rounds))
        figures[f"{count}_requests_ratio"] = rounded(
            figures[f"ours_{count}_requests_per_s"] / figures[f"limit_{count}_requests_per_s"]
        )
        figures[f"{count}_p50_ratio"] = rounded(
            figures[f"ours_{count}_p50_ms"] / figures[f"limit_{count}_p50_ms"]
        )
        for name in ours[count][0].cpu_us:
            cost = median(each.cpu_us[name] for each in ours[count])
            figures[f"{name}_{count}_cpu_each_us"] = rounded(cost)
    return figures


def _goals(figures: dict[str, float]) -> list[harness.Goal]:
    goals = [
        at_least(f"requests a second beside the bare loop, {count} connections",
                 figures[f"{count}_requests_ratio"], 0.7)
        for count in CONNECTIONS[1:]
    ]  # fmt: skip
    goals.append(at_most("idle p50 beside the bare loop", figures["1_p50_ratio"], 2.0))
    if (psutil.cpu_count() or 1) >= CORES_FOR_GOAL:
        goals.append(
            at_least("requests a second, 500 connections", figures["ours_500_requests_per_s"], 20_000)
        )
    return goals


if __name__ == "__main__":
    parser = harness.arguments("request_path", "The cheapest request through a worker, beside a bare loop.")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each side (default: 9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (default: 1)")
    given = parser.parse_args()
    harness.main(lambda: measure(given.rounds, given.seconds), as_json=given.json, time_limit_s=TIME_LIMIT_S)
