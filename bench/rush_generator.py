"""A load generator of the rush: `python -m bench.rush_generator FIRST PORTS TOKENS AT_ONCE`.

A process with its own part of the crowd, whose first player is the FIRST of all. It reads orders from stdin,
line by line, and answers each with a line of JSON when it is done; how far its players are goes along twice a
second.
"""

import asyncio
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.rush_player import Player
from bench.rush_story import TIERS, Stage, Tally, tier_of
from bench.system import HOST

OPENING_AT_ONCE = 100
PER_ADDRESS = 3_000
"""Players from one loopback address: a kernel looks for a free port the longer the fewer are free."""

FIRST_ADDRESS = IPv4Address("127.0.3.1")

PROGRESS_S = 0.5
PING_S = 30.0
"""A player who said nothing for so long pings: a node hangs up after 45 s of silence."""

SWEEP_S = 1.0
RETURN_SPREAD_S = 1.0
RETURN_ATTEMPTS = 20

HEARD_S = 0.5
"""What was told is heard by then: before the opening, a wait at next to no rate."""


class Progress(msgspec.Struct):
    """A line to the benchmark: players by stage and by tier, and the order that is done."""

    counts: list[int]
    tallies: dict[str, Tally]
    done: str = ""


class Part:
    """This process's part of the crowd."""

    def __init__(self, first: int, ports: list[int], tokens: list[str], at_once: int) -> None:
        self.is_open = False
        self._ports, self._at_once = ports, at_once
        self._players = [Player(self, token, number) for number, token in enumerate(tokens, first)]
        self._counts = [0] * len(Stage)
        self._counts[Stage.OUTSIDE] = len(tokens)
        self._tallies = {tier: Tally() for tier in TIERS}
        self._opened_at = 0.0
        self._to_log_in: deque[Player] = deque()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # Orders.

    async def open(self) -> None:
        """Connect everybody."""
        waiting = iter(self._players)
        await asyncio.gather(*(self._connect_all(waiting) for _ in range(OPENING_AT_ONCE)))
        await self._until(lambda: self._counts[Stage.OUTSIDE] == 0)

    async def login(self) -> None:
        """Have everybody log in, `at_once` of them at the same time."""
        self._to_log_in.extend(player for player in self._players if player.stage is Stage.CONNECTED)
        for _ in range(self._at_once):
            self._next_login()
        await self._until(lambda: not self._counts[Stage.CONNECTED] and not self._counts[Stage.LOGGING_IN])

    async def opened(self) -> None:
        """The room is open: an estimate counts once all that was told before it was has been heard."""
        self._opened_at = time.time()
        await asyncio.sleep(HEARD_S)
        self.is_open = True

    async def finish(self) -> None:
        """Wait until everybody is in or lost."""
        everybody = len(self._players)
        await self._until(lambda: self._counts[Stage.IN] + self._counts[Stage.LOST] == everybody)

    async def report(self, path: str) -> None:
        """Write what happened to everybody."""
        with open(path, "wb") as file:  # noqa: ASYNC230 - the rush is over
            file.write(msgspec.msgpack.encode([player.story for player in self._players]))

    async def run(self) -> None:
        """Do as ordered until stdin ends."""
        orders = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        self._start(self._show_progress())
        self._start(self._keep_alive())
        while order := (await orders.readline()).decode().split():
            self._start(self._obey(*order))

    async def _obey(self, name: str, *arguments: str) -> None:
        await getattr(self, name)(*arguments)
        self._say(name)

    # What players tell.

    def moved(self, player: Player, was: Stage) -> None:
        """Count, and let the next one log in where one is done with it."""
        self._counts[was] -= 1
        self._counts[player.stage] += 1
        self._tally(player, was)
        if was is Stage.LOGGING_IN:
            self._next_login()
        self._changed.set()

    def _tally(self, player: Player, was: Stage) -> None:
        tally = self._tallies[tier_of(player.number)]
        tally.waiting += (player.stage is Stage.WAITING) - (was is Stage.WAITING)
        if (was, player.stage) == (Stage.WAITING, Stage.READY):
            waited_s = time.time() - max(self._opened_at, player.ticket_at)
            tally.add(Tally(admitted=1, waited_s=waited_s, longest_s=waited_s))

    def hung_up(self, player: Player) -> None:
        """Bring the player back, by way of another node."""
        if player.stage is Stage.OUTSIDE:
            player.fail("no hello")
            return
        player.story.returns += 1
        self._start(self._return(player))

    def _next_login(self) -> None:
        if self._to_log_in:
            self._to_log_in.popleft().log_in()

    # Connections.

    async def _connect_all(self, players: Iterator[Player]) -> None:
        for player in players:
            try:
                await self._connect(player)
            except OSError as error:
                player.fail(f"no connection: {error}")

    async def _return(self, player: Player) -> None:
        for _ in range(RETURN_ATTEMPTS):
            await asyncio.sleep(random.uniform(0, RETURN_SPREAD_S))
            player.route += 1
            try:
                await self._connect(player)
            except OSError:
                continue
            return
        player.fail("no way back")

    async def _connect(self, player: Player) -> None:
        port = self._ports[player.route % len(self._ports)]
        address = str(FIRST_ADDRESS + player.number // PER_ADDRESS)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: player, HOST, port, local_addr=(address, 0))

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            silent_since = time.time() - PING_S
            for player in self._players:
                if player.sent_at < silent_since:
                    player.ping()

    # The benchmark.

    async def _show_progress(self) -> None:
        while True:
            self._say()
            await asyncio.sleep(PROGRESS_S)

    def _say(self, done: str = "") -> None:
        print(msgspec.json.encode(Progress(self._counts, self._tallies, done)).decode(), flush=True)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            task.print_stack()
            os._exit(1)  # the benchmark sees it, and says so


def main(first: str, ports: str, tokens: str, at_once: str) -> None:
    """Be a generator."""
    given = msgspec.msgpack.decode(Path(tokens).read_bytes(), type=list[str])

    async def run() -> None:
        await Part(int(first), [int(port) for port in ports.split(",")], given, int(at_once)).run()

    uvloop.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
