"""What goes wrong in a rush on purpose: login workers that die again and again, and a node that dies once."""

import asyncio
from itertools import cycle

from bench.system import Settings, System

KILL_WORKER_S = 5.0


async def kill_workers(system: System, settings: Settings) -> None:
    """Kill a login worker every 5 s, each in its turn, and start it again. Runs as a task."""
    workers = [name for name in system.pids if name.startswith("login-")]
    for name in cycle(workers):
        await asyncio.sleep(KILL_WORKER_S)
        system.processes.kill(name)
        system.processes.start_again(name, settings)


async def kill_node(system: System, after_s: float) -> None:
    """Kill the last node. Runs as a task."""
    await asyncio.sleep(after_s)
    system.processes.kill([name for name in system.pids if name.startswith("SOCK")][-1])
