"""Brings the number of workers to what operations has decided (docs/operations.md)."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis

from protocol.queues import QueueType
from runtime.waiting import cancel
from scripts.commands.status import ALIVE
from storage.errors import StoreAway
from storage.queues import QueueServer
from storage.scaling import Decision, Scaling
from storage.servers import Servers

EVERY_S = 1.0
FOLLOWS_S = 10.0
"""Who has not looked for so long follows no more, and another may."""

WORKING = frozenset({"STARTING", "READY"})


class CannotAct(Exception):
    """A worker cannot be started or ended, or workers cannot be seen; the text tells people why."""


class Driver(Protocol):
    """Who starts and ends workers on this machine. Raises CannotAct."""

    def named(self, worker_id: str) -> str:
        """What operators know a worker by."""
        ...

    async def workers(self, kind: str) -> Sequence[str]:
        """The workers of a kind that it keeps alive and may end, the first ones first."""
        ...

    async def start(self, worker_id: str) -> None:
        """Start a worker; returns when it is ready."""
        ...

    async def end(self, worker_id: str) -> None:
        """Have a worker finish what it has accepted, and end; returns when it has."""
        ...


Say = Callable[[str, str], None]
"""Tells people a line, in a style such as "red"."""


class Scaler:
    """Follows decisions, or with `is_dry` tells what it would do. One in a system follows at a time."""

    def __init__(self, redis: Redis, driver: Driver, say: Say, name: str, *, is_dry: bool = False) -> None:
        """`name` tells people who follows, and where; no other one bears it."""
        self._scaling = Scaling(redis)
        self._servers = Servers(redis)
        self._queues = QueueServer(redis)
        self._driver = driver
        self._say = say
        self._name = name
        self._is_dry = is_dry
        self._coming: set[str] = set()
        self._leaving: set[str] = set()
        self._ended: set[str] = set()
        self._failed: dict[str, int] = {}
        self._told: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_changing(self) -> bool:
        """Whether a worker is being started or ended."""
        return bool(self._tasks)

    async def run(self) -> None:
        """Look again and again. Ends by being cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(EVERY_S)
        finally:
            await cancel(self._tasks)

    async def look(self) -> None:
        """Go by the newest decisions once. What that begins goes on beside."""
        try:
            follower = None if self._is_dry else await self._scaling.follow(self._name, FOLLOWS_S)
            if follower is not None:
                return self._tell("", f"{follower} follows already", "")
            decisions = await self._scaling.decisions()
            for decision in decisions.values():
                await self._follow(decision)
        except (StoreAway, CannotAct) as error:
            self._tell("", f"Cannot see to the number of workers: {error}", "red")
        else:
            self._told.pop("", None)

    async def _follow(self, decision: Decision) -> None:
        kind = decision.kind
        if decision.wanted == decision.now:
            self._told.pop(kind, None)
            return
        own = [each for each in await self._driver.workers(kind) if each not in self._leaving]
        known = await self._alive(kind)
        working = {name for name, state in known.items() if state in WORKING}
        # What was ended here has ended, however long its status says otherwise.
        self._ended -= {name for name in _of(kind, self._ended) if name not in working or name in own}
        present = (working - self._leaving - self._ended) | {*own, *_of(kind, self._coming)}
        missing = decision.wanted - len(present)
        if decision.wanted > decision.now and missing > 0:
            self._bring(decision, _free(kind, {*present, *known, *self._leaving}, missing))
        elif decision.wanted < decision.now and missing < 0:
            await self._take(decision, own, -missing)

    def _bring(self, decision: Decision, chosen: Sequence[str]) -> None:
        """Start these."""
        # One try a decision: what keeps a worker from starting keeps the next one too.
        if self._failed.get(decision.kind) != decision.changed_at:
            self._tell_of(decision, "start", chosen)
            self._begin(self._coming, chosen, lambda worker_id: self._start(worker_id, decision))

    async def _take(self, decision: Decision, own: Sequence[str], most: int) -> None:
        """End the newest ones, which finish what they have accepted first.

        A task can take longer than a drain may: who holds one is left alone, and looked at again.
        """
        found = await self._queues.holders(QueueType.TASK)
        holders = {consumer.partition(":")[0] for consumer in found}
        chosen = [each for each in reversed(own) if each not in holders][:most]
        busy = [each for each in reversed(own) if each in holders] if len(chosen) < most else []
        self._tell_of(decision, "end", chosen, busy)
        self._begin(self._leaving, chosen, self._end)

    async def _alive(self, kind: str) -> dict[str, str]:
        """The states of the kind's workers that live, wherever they run."""
        found = await self._servers.all()
        states = {name: found[name].get("statusCode", "") for name in _of(kind, found)}
        return {name: state for name, state in states.items() if state in ALIVE}

    def _begin(
        self, noted: set[str], chosen: Iterable[str], change: Callable[[str], Coroutine[Any, Any, None]]
    ) -> None:
        if self._is_dry:
            return
        for worker_id in chosen:
            noted.add(worker_id)
            task = asyncio.create_task(change(worker_id), name=worker_id)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _start(self, worker_id: str, decision: Decision) -> None:
        try:
            await self._driver.start(worker_id)
        except CannotAct as error:
            self._failed[decision.kind] = decision.changed_at
            self._say(f"{self._driver.named(worker_id)} did not start: {error}", "red")
        finally:
            self._coming.discard(worker_id)

    async def _end(self, worker_id: str) -> None:
        try:
            await self._driver.end(worker_id)
        except CannotAct as error:
            self._say(f"{self._driver.named(worker_id)} did not end: {error}", "red")
        else:
            self._ended.add(worker_id)
        finally:
            self._leaving.discard(worker_id)

    def _tell_of(
        self, decision: Decision, verb: str, chosen: Sequence[str], busy: Sequence[str] = ()
    ) -> None:
        """Tell what is decided and done about it, once."""
        would = "would " if self._is_dry else ""
        acts = [f"{would}{verb} {self._names(chosen)}"] if chosen else []
        if busy:
            acts.append(f"{self._names(busy)} would, but not while at work")
        if acts:
            workers = "1 worker" if decision.now == 1 else f"{decision.now} workers"
            text = f"{decision.kind}: {workers}, {decision.reason}; {', '.join(acts)}"
            self._tell(decision.kind, text, "cyan")

    def _names(self, worker_ids: Iterable[str]) -> str:
        return ", ".join(map(self._driver.named, worker_ids))

    def _tell(self, about: str, text: str, style: str) -> None:
        """Tell what is news."""
        if self._told.get(about) != text:
            self._told[about] = text
            self._say(text, style)


def _of(kind: str, names: Iterable[str]) -> set[str]:
    """Those of the names that are of a kind."""
    return {name for name in names if name.rpartition("-")[0] == kind}


def _free(kind: str, taken: set[str], count: int) -> list[str]:
    """The first names of a kind that nobody bears."""
    numbered = (f"{kind}-{number}" for number in range(1, len(taken) + count + 1))
    return [name for name in numbered if name not in taken][:count]
