"""Tasks that do nothing: enqueued and completed a second, and how long one takes when nothing else goes on.

Ours beside SAQ, taskiq and BullMQ, with one worker process of 100 at once each, on the same Valkey, in turns.
The others are installed into a folder of their own, which is given with --peers:

    python -m venv PEERS/venv
    PEERS/venv/bin/pip install "saq[redis,hiredis]" taskiq taskiq-redis orjson uvloop
    npm install --prefix PEERS bullmq

Each driver warms up with a quarter of its tasks, waits for single ones, then enqueues all and waits for
the last. It learns of a single one's end by looking again and again; BullMQ's by the stream of its events.
"""

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from bench import harness
from bench.harness import CannotMeasure, Result, at_least, at_most, quantile, rounded
from bench.system import start_valkey, temporary_processes
from storage.connections import connect

PROGRAMS = Path(__file__).parent
TIME_LIMIT_S = 240.0
WARM_UP_S = 2.0
ROUND_LIMIT_S = 60.0
IDLE = 100


class Measured(msgspec.Struct, rename="camel"):
    """What a contestant found in one round: tasks a second, and the seconds of each idle one."""

    per_s: float
    took_s: list[float]


@dataclass(frozen=True)
class Contestant:
    """A task queue: its command line without role and numbers, how many tasks a round has, its database."""

    name: str
    command: Sequence[str]
    count: int
    database: int


def contestants(peers: Path, count: int) -> list[Contestant]:
    """Ours, and those of the others that are installed. Raises CannotMeasure where none is."""
    python, modules = peers / "venv" / "bin" / "python", peers / "node_modules"
    found = [Contestant("ours", (sys.executable, "-m", "bench.tasks_peer"), count, 0)]
    if python.exists():
        # Slow ones get fewer, for the same time.
        for number, name in enumerate(("saq", "taskiq"), start=1):
            program = str(PROGRAMS / "peers" / f"{name}_peer.py")
            found.append(Contestant(name, (str(python), program), max(1, count // 5), number))
    if (modules / "bullmq").exists():
        found.append(Contestant("bullmq", ("node", str(PROGRAMS / "peers" / "bullmq_peer.js")), count, 3))
    if len(found) == 1:
        raise CannotMeasure(f"{peers}: none of the others is there. How to install them:\n{__doc__}")
    return found


async def measure(peers: Path, count: int, rounds: int) -> Result:
    """Measure all, in turns. Raises CannotMeasure."""
    machine = harness.machine()
    taking_part = contestants(peers, count)
    found: dict[str, list[Measured]] = defaultdict(list)
    environ = {**os.environ, "NODE_PATH": str(peers / "node_modules"), "PYTHONPATH": str(PROGRAMS.parent)}
    with temporary_processes() as (directory, processes):
        url = await start_valkey(directory, processes)
        async with connect(url) as redis:
            await redis.config_set("auto-aof-rewrite-percentage", 0)  # it would fall on whoever's turn it is
        base = url.rpartition("/")[0]
        for each in taking_part:
            processes.start(each.name, [*each.command, "worker", f"{base}/{each.database}"], environ)
        await asyncio.sleep(WARM_UP_S)
        for number in range(rounds + 1):
            for each in taking_part:
                processes.check()
                measured = await _drive(each, f"{base}/{each.database}", environ, directory)
                if number:  # the first round warms up
                    found[each.name].append(measured)
    return _result(found, machine)


async def _drive(each: Contestant, url: str, environ: dict[str, str], directory: Path) -> Measured:
    driver = await asyncio.create_subprocess_exec(
        *each.command, "drive", url, str(each.count), str(IDLE),
        cwd=directory, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ROUND_LIMIT_S):
            said, trouble = await driver.communicate()
    except TimeoutError:
        driver.kill()
        raise CannotMeasure(f"{each.name}: no end of a round within {ROUND_LIMIT_S:g} s.") from None
    try:
        return msgspec.json.decode(said, type=Measured)
    except msgspec.DecodeError:
        raise CannotMeasure(f"{each.name} found nothing:\n{trouble.decode()[-2000:]}") from None


def _result(found: dict[str, list[Measured]], machine: dict[str, str | float]) -> Result:
    figures, goals = {}, []
    for name, rounds in found.items():
        figures[f"{name}_tasks_per_s"] = rounded(median(each.per_s for each in rounds))
        took = [seconds for each in rounds for seconds in each.took_s]
        figures[f"{name}_idle_p50_ms"] = rounded(quantile(took, 0.5) * 1000)
        figures[f"{name}_idle_p99_ms"] = rounded(quantile(took, 0.99) * 1000)
    for name in found:
        if name != "ours":
            speed = figures["ours_tasks_per_s"] / figures[f"{name}_tasks_per_s"]
            wait = figures["ours_idle_p50_ms"] / figures[f"{name}_idle_p50_ms"]
            goals.append(at_least(f"tasks a second beside {name}", speed, 1))
            goals.append(at_most(f"idle p50 beside {name}", wait, 1))
    return Result("tasks", figures, goals, machine)


if __name__ == "__main__":
    parser = harness.arguments("tasks", "Tasks that do nothing, beside SAQ, taskiq and BullMQ.")
    parser.add_argument(
        "--peers", type=Path, required=True, metavar="DIR", help="where the others are installed"
    )
    parser.add_argument("--count", type=int, default=20_000, help="tasks of a round (default: 20000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    given = parser.parse_args()
    harness.main(
        lambda: measure(given.peers.absolute(), given.count, given.rounds),
        as_json=given.json,
        time_limit_s=TIME_LIMIT_S,
    )
