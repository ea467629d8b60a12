"""What is looked at while the rush goes on: the order in Redis, and what each process takes."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil
from redis.asyncio import Redis

from storage import keys

LOOK_S = 0.2
USAGE_S = 0.5
BATCH = 1000

FIELDS = ("tier", "issuedAt", "readyAt", "passedAt")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What Redis holds of a ticket. Times are in ms since the epoch, -1 where it did not happen.

    `score` is what the waiting room sorted it by, None when it was admitted before it was seen waiting.
    `passed_over` is whether its turn came while its player was away.
    """

    tid: str
    tier: str
    issued_ms: int
    ready_ms: int
    score: float | None
    passed_over: bool = False


class Arrivals:
    """The scores of tickets in the waiting room, read in time: one that is READY has none any more."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._last = "-inf"
        self.scores: dict[str, float] = {}

    async def keep_looking(self) -> None:
        """Read the scores of those who come. Runs as a task."""
        while True:
            found = await self._read("ZRANGE", keys.PORTAL_WAITING, self._last, "+inf", "BYSCORE")
            if found:
                self._last = f"({found[-1][1]:.0f}"
            await asyncio.sleep(LOOK_S)

    async def look_at_all(self) -> None:
        """Read the scores of all who wait."""
        first = 0
        while await self._read("ZRANGE", keys.PORTAL_WAITING, first, first + BATCH - 1):
            first += BATCH

    async def _read(self, *command: str | int) -> list[tuple[str, float]]:
        answer: list[bytes] = await self._redis.execute_command(*command, "WITHSCORES")
        found = [(tid.decode(), float(score)) for tid, score in zip(answer[::2], answer[1::2], strict=True)]
        self.scores.update(found)
        return found

    async def tickets(self, tids: Iterable[str]) -> dict[str, Ticket]:
        """The tickets of these ids, as far as there are any."""
        wanted, tickets = list(tids), {}
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for tid in batch:
                    pipeline.hmget(keys.ticket(tid), FIELDS)
                answers: list[list[bytes | None]] = await pipeline.execute()
            for tid, values in zip(batch, answers, strict=True):
                if values[0] is not None:
                    tickets[tid] = self._ticket(tid, [(value or b"").decode() for value in values])
        return tickets

    def _ticket(self, tid: str, values: list[str]) -> Ticket:
        tier, issued, ready, passed = values
        return Ticket(tid, tier, int(issued), int(ready or -1), self.scores.get(tid), passed != "")


class Usage:
    """CPU and memory of processes that come and go. `pids` tells them by name, at every look."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_s: dict[tuple[str, int], float] = {}
        self.resident_bytes: dict[str, int] = {}

    async def keep_looking(self) -> None:
        """Look again and again. Runs as a task."""
        while True:
            self.look()
            await asyncio.sleep(USAGE_S)

    def look(self) -> None:
        """Look once."""
        for name, pid in self._pids().items():
            try:
                process = self._processes.setdefault(pid, psutil.Process(pid))
                with process.oneshot():
                    times, resident = process.cpu_times(), process.memory_info().rss
            except psutil.Error:  # it was killed, which may be part of the rush
                continue
            self._cpu_s[name, pid] = times.user + times.system
            self.resident_bytes[name] = max(resident, self.resident_bytes.get(name, 0))

    def cpu_s(self) -> dict[str, float]:
        """The CPU seconds that each has taken so far, by name; `others` are the machine's besides."""
        self.look()
        totals: dict[str, float] = defaultdict(float)
        for (name, _), seconds in self._cpu_s.items():
            totals[name] += seconds
        machine = psutil.cpu_times()
        return {**totals, "others": sum(machine) - machine.idle - machine.iowait - sum(totals.values())}


KINDS = {"SOCK": "nodes", "login": "login_workers", "status": "status_manager", "generator": "generators"}


def kind(name: str) -> str:
    """What kind of process this is: SOCK001 is a node, login-2 a login worker."""
    return KINDS.get(name.rstrip("-0123456789"), name)
