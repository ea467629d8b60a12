"""The cheapest request through a worker: requests a second and the time that one takes, beside a bare loop.

Ours: `queue.cancel` of a ticket whose signature is wrong. It is answered 404 by the login worker from its
signature alone, so everything that is measured is the path: socket, frame, checks, queue, worker, queue,
frame, socket. The limit is `bench.bare_loop` on the same Valkey. Both are closed loops with one request
in flight for each connection or caller, and take turns.
"""

import contextlib
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from statistics import median

import psutil

from bench import bare_loop, harness
from bench.callers import Caller, Meter
from bench.harness import CannotMeasure, Result, at_least, at_most, quantile, rounded
from bench.system import HOST, System, running_system, temporary_processes
from protocol.messages.waiting import Cancel

CONNECTIONS = (1, 50, 500)
MESSAGE = Cancel(tid=f"tid_{'A' * 22}.{'B' * 22}", client_id=f"client_{'C' * 22}")
NOT_FOUND = 404
TIME_LIMIT_S = 240.0
CORES_FOR_GOAL = 4
Measure = Callable[[int, float], Awaitable[tuple[float, list[float]]]]


@dataclass(frozen=True)
class Measured:
    """One round: answers a second, and the median time of an answer in ms."""

    per_second: float
    p50_ms: float


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


class CpuShares:
    """How busy processes were, in cores."""

    def __init__(self, system: System) -> None:
        pids = {"socketd": system.pids["SOCK001"], "login_worker": system.pids["login-1"]}
        self._processes = {
            name: psutil.Process(pid)
            for name, pid in {**pids, "valkey": system.pids["valkey"], "generator": None}.items()
        }
        self.of: dict[str, list[float]] = defaultdict(list)

    def begin(self) -> None:
        """Start to count."""
        for process in self._processes.values():
            process.cpu_percent()

    def end(self) -> None:
        """Note what was used since `begin`."""
        for name, process in self._processes.items():
            self.of[name].append(process.cpu_percent() / 100)


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
    ours: dict[int, list[Measured]] = defaultdict(list)
    limit: dict[int, list[Measured]] = defaultdict(list)
    async with running_system({}) as system, _bare(system.redis_url) as front:
        load, shares = Load(system.ports[0]), CpuShares(system)
        for connections in CONNECTIONS:
            await load.measure(connections, 0.5)
            await front.measure(connections, 0.5)
            for _ in range(rounds):
                shares.begin()
                ours[connections].append(_measured(*await load.measure(connections, seconds)))
                shares.end()
                limit[connections].append(_measured(*await front.measure(connections, seconds)))
    figures = _figures(ours, limit)
    most = max(CONNECTIONS)
    figures |= {f"{name}_at_{most}_cores": rounded(median(of[-rounds:])) for name, of in shares.of.items()}
    return Result("request_path", figures, _goals(figures), machine)


def _measured(per_second: float, took_s: list[float]) -> Measured:
    return Measured(per_second, quantile(took_s, 0.5) * 1000)


def _figures(ours: dict[int, list[Measured]], limit: dict[int, list[Measured]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for connections in CONNECTIONS:
        rates = {"ours": [each.per_second for each in ours[connections]]}
        rates["limit"] = [each.per_second for each in limit[connections]]
        times = {"ours": [each.p50_ms for each in ours[connections]]}
        times["limit"] = [each.p50_ms for each in limit[connections]]
        for side in ("ours", "limit"):
            figures[f"{side}_{connections}_requests_per_s"] = rounded(median(rates[side]))
            figures[f"{side}_{connections}_p50_ms"] = rounded(median(times[side]))
        figures[f"{connections}_requests_ratio"] = rounded(harness.ratio_of_medians(**_sides(rates)))
        figures[f"{connections}_p50_ratio"] = rounded(harness.ratio_of_medians(**_sides(times)))
    return figures


def _sides(of: dict[str, list[float]]) -> dict[str, list[float]]:
    return {"ours": of["ours"], "limits": of["limit"]}


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
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (default: 2)")
    given = parser.parse_args()
    harness.main(lambda: measure(given.rounds, given.seconds), as_json=given.json, time_limit_s=TIME_LIMIT_S)
