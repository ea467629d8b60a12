"""Starts groups of processes one after the other, and ends them in the reverse order."""

import asyncio
from collections.abc import Sequence

from scripts.commands.child import Child, Observer, Program

LOOK_AGAIN_S = 1.0
"""Children come and go: how often who watches looks who there is."""


class Supervisor:
    """Keeps programs alive. `lock` is a file descriptor that every one of them inherits.

    Children that come or go one by one are no matter of `watch`: whoever has them come or go sees to it.
    """

    def __init__(self, observer: Observer, lock: int) -> None:
        self._observer = observer
        self._lock = lock
        self._apart: set[Child] = set()
        self._groups: list[dict[Child, asyncio.Task[None]]] = []

    @property
    def children(self) -> list[Child]:
        """Every child, in the order in which they were started."""
        return [child for group in self._groups for child in group]

    async def start(self, *groups: Sequence[Program]) -> None:
        """Start groups all at once; returns when all is ready. Raises Failed when something will not be."""
        tasks: set[asyncio.Task[None]] = set()
        for programs in groups:
            children = [Child(program, self._observer, self._lock) for program in programs]
            group = {child: asyncio.create_task(child.run(), name=child.process_id) for child in children}
            self._groups.append(group)
            tasks.update(group.values())
        ready = asyncio.create_task(self._all_ready())
        try:
            await asyncio.wait({ready, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        self._raise_failures()

    async def add(self, program: Program, beside: Child) -> None:
        """Start one more beside another, and wait until it is ready.

        Raises Failed when it will not be; the others are none the worse for it.
        """
        group = next(group for group in self._groups if beside in group)
        child = Child(program, self._observer, self._lock)
        task = group[child] = asyncio.create_task(child.run(), name=child.process_id)
        self._apart.add(child)
        ready = asyncio.create_task(child.was_ready.wait())
        try:
            await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            self._apart.discard(child)
            if task.done():
                del group[child]
        if task.done():
            task.result()

    async def end(self, child: Child) -> None:
        """End one child, which finishes what it has accepted, and forget it."""
        for group in self._groups:
            if child in group:
                self._apart.add(child)
                child.stop()
                await asyncio.wait([group[child]])
                del group[child]
                self._apart.discard(child)

    async def watch(self) -> None:
        """Wait for ever; raises what ends the care for a child, unless it has left."""
        while True:
            tasks = [
                task for group in self._groups for child, task in group.items() if child not in self._apart
            ]
            if tasks:
                await asyncio.wait(tasks, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(LOOK_AGAIN_S)
            self._raise_failures()
            self._forget_who_left()

    async def stop(self) -> bool:
        """End all groups, the last one first. Answers whether every process ended well."""
        for group in reversed(self._groups):
            for child in group:
                child.stop()
            await asyncio.gather(*group.values(), return_exceptions=True)
        return all(child.ended_well for child in self.children)

    def kill(self) -> None:
        """End all processes now."""
        for child in self.children:
            child.kill()

    def _raise_failures(self) -> None:
        for group in self._groups:
            for child, task in group.items():
                if task.done() and child not in self._apart:
                    task.result()

    def _forget_who_left(self) -> None:
        for group in self._groups:
            left = [child for child, task in group.items() if task.done() and child not in self._apart]
            for child in left:
                del group[child]

    async def _all_ready(self) -> None:
        for child in self.children:
            await child.was_ready.wait()
