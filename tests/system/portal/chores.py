"""Kinds of tasks that only the tests know. As a script it is a portal worker that does them too."""

import asyncio
import os
import runpy
import signal
import time
from pathlib import Path

import msgspec

from workers.portal import engine
from workers.portal.kinds import Context, Limits
from workers.portal.room import PortalRoom, kinds

POISON, HARMLESS, CHORE, OVERLONG = "poison", "harmless", "chore", "overlong"

DRAIN_S = 1.0
STEP_S = 0.005


class Chore(msgspec.Struct, frozen=True):
    """How long it takes, or else what file it waits for, and the folder in which it leaves its marks."""

    folder: str = ""
    duration_s: float = 0.0
    gate: str = ""


def begun(folder: Path, task_id: str) -> int:
    """How often a chore was begun."""
    mark = folder / f"{task_id}.begun"
    return len(mark.read_text().splitlines()) if mark.exists() else 0


def done(folder: Path, task_id: str) -> bool:
    """Whether a chore came to its end."""
    return (folder / f"{task_id}.done").exists()


def undone(folder: Path, task_id: str) -> bool:
    """Whether a chore's marks were removed."""
    return (folder / f"{task_id}.undone").exists()


async def undo(context: Context[PortalRoom], chore: Chore) -> None:
    """Leave a mark that says so."""
    Path(chore.folder, f"{context.task_id}.undone").touch()


def _begin(context: Context[PortalRoom], chore: Chore) -> None:
    with Path(chore.folder, f"{context.task_id}.begun").open("a") as mark:
        mark.write("begun\n")


async def kill(context: Context[PortalRoom], chore: Chore) -> None:
    """Kill whoever does it."""
    os.kill(os.getpid(), signal.SIGKILL)


async def do_nothing(context: Context[PortalRoom], chore: Chore) -> str:
    """Be done at once."""
    return "done"


async def take_time(context: Context[PortalRoom], chore: Chore) -> float:
    """Take as long as is asked for, saying all the while how far it is. Answers how long it took.

    Fails where it was done before.
    """
    _begin(context, chore)
    began_s = time.monotonic()
    while (taken_s := time.monotonic() - began_s) < chore.duration_s:
        context.progress(100 * taken_s / chore.duration_s)
        await asyncio.sleep(STEP_S)
    while chore.gate and not Path(chore.gate).exists():
        await asyncio.sleep(STEP_S)
    Path(chore.folder, f"{context.task_id}.done").touch(exist_ok=False)
    return taken_s


async def never_end(context: Context[PortalRoom], chore: Chore) -> None:
    """Take longer than it may."""
    _begin(context, chore)
    await asyncio.sleep(3600)


def main() -> None:
    """Be a portal worker that knows these kinds too."""
    engine.DRAIN_S = DRAIN_S
    usual = Limits(concurrency=4, time_limit_s=60)
    kinds.kind(POISON, Chore, usual)(kill)
    kinds.kind(HARMLESS, Chore, usual)(do_nothing)
    kinds.kind(CHORE, Chore, usual, undo)(take_time)
    limited = Limits(concurrency=4, time_limit_s=0.3, retries=2, backoff_s=0.1)
    kinds.kind(OVERLONG, Chore, limited, undo)(never_end)
    runpy.run_module("workers", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
