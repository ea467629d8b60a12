"""What a process measures of itself: how late its loop runs, what it uses, and how its network fares."""

import asyncio
from collections import deque
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import psutil

SAMPLE_INTERVAL_S = 0.1
WINDOW_SAMPLES = 50  # with the interval above: the last 5 s, about one heartbeat

DEGRADED_LAG_MS = 250.0  # a player begins to feel it
BAD_LAG_MS = 1_000.0
DEGRADED_FAILURE_SHARE = 0.01
BAD_FAILURE_SHARE = 0.10
BAD_FAILURE_COUNT = 10  # of a handful of sends, one failure is no bad network


class LoopLag:
    """Measures how late the event loop runs its timers: `run` samples, `max_ms` tells."""

    def __init__(self) -> None:
        self._samples_ms: deque[float] = deque([0.0], maxlen=WINDOW_SAMPLES)

    @property
    def max_ms(self) -> float:
        """The greatest lateness of the last few seconds, in milliseconds."""
        return max(self._samples_ms)

    async def run(self) -> None:
        """Sample until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + SAMPLE_INTERVAL_S
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._samples_ms.append(max(0.0, clock() - due) * 1_000)


class Resources(NamedTuple):
    """What this process uses.

    `cpu_percent`: of one core since the last call, so that four busy threads give 400; `memory_bytes`:
    resident; `memory_percent`: the same as a share of the machine's.
    """

    cpu_percent: float
    memory_bytes: int
    memory_percent: float


def resources() -> Resources:
    """Sample this process. The CPU is that since the last call, and 0 at first: let there be one caller."""
    process = _this_process()
    with process.oneshot():
        memory_bytes = process.memory_info().rss
        cpu_percent = process.cpu_percent(interval=None)
    return Resources(cpu_percent, memory_bytes, 100 * memory_bytes / _machine_memory_bytes())


@cache
def _this_process() -> psutil.Process:
    return psutil.Process()


@cache
def _machine_memory_bytes() -> int:
    return int(psutil.virtual_memory().total)


class NetworkStatus(StrEnum):
    """How well a process reaches its peers, as the `networkStatus` of its heartbeats says it."""

    GOOD = "GOOD"
    DEGRADED = "DEGRADED"
    BAD = "BAD"


def network_status(loop_lag_ms: float, *, sends: int, send_failures: int) -> NetworkStatus:
    """Judge the time since the last heartbeat.

    `loop_lag_ms`: greatest lateness of the loop. `sends`: messages that the process tried to send, of which
    `send_failures` failed. BAD from 1 s of lag, or from 10 failures that are 10 % of the sends; DEGRADED from
    250 ms, or from failures of 1 %.
    """
    share = send_failures / max(sends, send_failures, 1)
    if loop_lag_ms >= BAD_LAG_MS or (share >= BAD_FAILURE_SHARE and send_failures >= BAD_FAILURE_COUNT):
        return NetworkStatus.BAD
    if loop_lag_ms >= DEGRADED_LAG_MS or share >= DEGRADED_FAILURE_SHARE:
        return NetworkStatus.DEGRADED
    return NetworkStatus.GOOD
