"""Starts and ends workers of a running system as operations decides (section 6.3 of the seed)."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from scripts.commands.child import Child, Failed
from scripts.commands.programs import Programs
from scripts.commands.screen import Screen
from scripts.commands.supervisor import Supervisor
from storage.errors import StoreAway
from storage.scaling import Decision, Scaling

EVERY_S = 1.0


class Scaler:
    """Brings the number of workers of each kind to what is wanted, one worker at a time."""

    def __init__(
        self,
        redis: Redis,
        supervisor: Supervisor,
        programs: Programs,
        screen: Screen,
        ended: Callable[[], None],
    ) -> None:
        """`ended` is called when a worker has ended."""
        self._ended = ended
        self._scaling = Scaling(redis)
        self._supervisor = supervisor
        self._programs = programs
        self._screen = screen

    async def run(self) -> None:
        """Go by the newest decisions for as long as the system lives."""
        while True:
            try:
                for decision in (await self._scaling.decisions()).values():
                    await self._follow(decision)
            except StoreAway as error:
                logging.warning("cannot read how many workers there should be: %s", error)
            except Failed as error:
                self._screen.say(f"One more did not start: {error}", "red")
            await asyncio.sleep(EVERY_S)

    async def _follow(self, decision: Decision) -> None:
        workers = self._workers(decision.kind)
        # Another number than the decision was made about: it is carried out already, or out of date.
        if not workers or decision.now != len(workers) or decision.wanted == decision.now:
            return
        said = f"{decision.kind}: {decision.now} workers, {decision.reason}"
        self._screen.say(said, "cyan")
        for _ in range(decision.now, decision.wanted):
            program = self._programs.worker(decision.kind, self._free_number(decision.kind))
            await self._supervisor.add(program, beside=workers[0])
        for worker in workers[decision.wanted :]:
            await self._supervisor.end(worker)
            self._ended()

    def _workers(self, kind: str) -> Sequence[Child]:
        """The workers of a kind, the first ones first."""
        numbered = [
            (int(number), child)
            for child in self._supervisor.children
            for name, _, number in [child.process_id.rpartition("-")]
            if name == kind
        ]
        return [child for _, child in sorted(numbered, key=lambda each: each[0])]

    def _free_number(self, kind: str) -> int:
        taken = {child.process_id for child in self._workers(kind)}
        return next(number for number in range(1, len(taken) + 2) if f"{kind}-{number}" not in taken)
