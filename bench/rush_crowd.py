"""The crowd of the rush as the benchmark sees it: generator processes that take orders."""

import asyncio
import contextlib
import math
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from bench.harness import CannotMeasure
from bench.rush_generator import Progress
from bench.rush_story import TIERS, Stage, Story, Tally

LINE_LIMIT_BYTES = 1_048_576

_progress = msgspec.json.Decoder(Progress)
_stories = msgspec.msgpack.Decoder(list[Story])


class Generator:
    """One generator process."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self.counts = [0] * len(Stage)
        self.tallies: dict[str, Tally] = {}
        self._process = process
        self._orders: dict[str, asyncio.Future[None]] = {}
        self._reading = asyncio.create_task(self._read())

    async def ask(self, order: str) -> None:
        """Have it done. Raises CannotMeasure when the process ends instead."""
        assert self._process.stdin is not None
        done = self._orders[order.split(maxsplit=1)[0]] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(f"{order}\n".encode())
        await done

    async def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            progress = _progress.decode(line)
            self.counts, self.tallies = progress.counts, progress.tallies
            if progress.done:
                self._settle(progress.done, None)
        for name in list(self._orders):
            self._settle(name, CannotMeasure("A generator process ended; what it said is above."))

    def _settle(self, name: str, error: Exception | None) -> None:
        done = self._orders.pop(name)
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


class Crowd:
    """All generators together."""

    def __init__(self, generators: Sequence[Generator], directory: Path) -> None:
        self._generators = generators
        self._directory = directory

    @property
    def pids(self) -> dict[str, int]:
        """The generators' process ids by name."""
        return {f"generator-{number}": each.pid for number, each in enumerate(self._generators, 1)}

    @property
    def counts(self) -> dict[Stage, int]:
        """How many players are at each stage, as last heard."""
        totals = [sum(column) for column in zip(*(each.counts for each in self._generators), strict=True)]
        return {stage: totals[stage] for stage in Stage}

    @property
    def tallies(self) -> dict[str, Tally]:
        """How players of each tier fare, as last heard."""
        totals = {tier: Tally() for tier in TIERS}
        for each in self._generators:
            for tier, tally in each.tallies.items():
                totals[tier].add(tally)
        return totals

    async def ask(self, order: str) -> None:
        """Have every generator do it."""
        await asyncio.gather(*(each.ask(order) for each in self._generators))

    async def stories(self) -> list[Story]:
        """What happened to every player."""
        paths = [self._directory / f"stories-{number}" for number in range(len(self._generators))]
        orders = [each.ask(f"report {path}") for each, path in zip(self._generators, paths, strict=True)]
        await asyncio.gather(*orders)
        return [story for path in paths for story in _stories.decode(path.read_bytes())]


@contextlib.asynccontextmanager
async def crowd(
    tokens: Sequence[str], ports: Sequence[int], generators: int, at_once: int
) -> AsyncIterator[Crowd]:
    """Start generators for the players with these refresh tokens; end them in the end."""
    started: list[Generator] = []
    share = math.ceil(len(tokens) / generators)
    with tempfile.TemporaryDirectory(prefix="lobbyd-rush-") as name:
        directory = Path(name)
        try:
            for number in range(generators):
                path = directory / f"tokens-{number}"
                path.write_bytes(msgspec.msgpack.encode(tokens[number * share : (number + 1) * share]))
                arguments = (
                    *(str(number * share), ",".join(map(str, ports)), str(path)),
                    str(math.ceil(at_once / generators)),
                )
                started.append(await _start(arguments))
            yield Crowd(started, directory)
        finally:
            await asyncio.gather(*(each.stop() for each in started))


async def _start(arguments: Sequence[str]) -> Generator:
    command = (sys.executable, "-m", "bench.rush_generator", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT_BYTES)
    return Generator(process)
