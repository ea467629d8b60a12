"""Matching without sockets: matchmakers on a Valkey of their own, and a node's queue for their events."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from statistics import fmean
from typing import Any

import msgspec
import psutil

from bench.harness import quantile
from bench.matching_crowd import NARROW, misfits, pairs, strangers
from bench.system import start_valkey, temporary_processes
from protocol.connection import ServerEvent
from protocol.envelope import Address, Delivery
from protocol.frames import HEADER_BYTES
from storage import keys
from storage.connections import connect_blocking, connect_wire
from storage.matches import Entry, MatchBoard, Matches, Session, Wish
from storage.queues import Outbox
from storage.tickets import Record
from storage.wire import Wire
from workers.matching.crowd import Crowd
from workers.matching.matchmaker import Matchmaker
from workers.matching.messenger import Messenger
from workers.matching.pairing import Widening, quality

NODE = "SOCK001"
QUEUE_SIZE = 10_000_000
BLOCK_S = 0.5
SESSION_TTL_S = 3600.0
GIVE_UP_S = 60.0
BATCH = 2000
MATCH_FOUND = "MATCH_FOUND"
ORIGIN = Address(NODE, 0)
"""Nobody's connection: whoever is answered at once is told by the answer."""

_deliveries = msgspec.msgpack.Decoder(list[Delivery])
_event = msgspec.msgpack.Decoder(ServerEvent)


class Floor:
    """Matchmakers in this process, each as a worker has it."""

    def __init__(self, url: str, workers: int, search: Mapping[str, Widening]) -> None:
        self._url = url
        self._search = search
        self._costs: list[float] = []
        self._wire = connect_wire(url)
        self._reading = connect_blocking(url, BLOCK_S)
        self._tasks: list[asyncio.Task[None]] = []
        self._matchmakers = [self._matchmaker(number) for number in range(workers)]
        self._valkey: psutil.Process
        self._asked_s: dict[str, float] = {}
        self._took_s: dict[str, float] = {}
        self._wanted = 0
        self._all = asyncio.Event()
        self._numbers = iter(range(1, 1_000_000_000))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, workers: int, search: Mapping[str, Widening] = NARROW) -> AsyncIterator["Floor"]:
        """A floor on a Valkey of its own, for as long as it is needed."""
        with temporary_processes() as (directory, processes):
            floor = cls(await start_valkey(directory, processes), workers, search)
            floor._valkey = psutil.Process(processes.pids["valkey"])
            floor._begin(floor._read())
            try:
                yield floor
            finally:
                for task in floor._tasks:
                    task.cancel()
                await floor._wire.aclose()
                await floor._reading.aclose()

    def _matchmaker(self, number: int) -> Matchmaker:
        wire: Wire = connect_wire(self._url)
        outbox = Outbox(wire)
        matches = Matches(wire, SESSION_TTL_S)
        crowd = Crowd(self._search)
        messenger = Messenger(outbox, matches, write=self._made)
        matchmaker = Matchmaker(matches, MatchBoard(wire), crowd, messenger, f"bench-{number}")
        self._begin(outbox.run())
        self._begin(matchmaker.run())
        return matchmaker

    def _begin(self, doing: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(doing))

    # What is measured.

    async def burst(self, players: Sequence[Wish]) -> dict[str, float]:
        """All of them at once. How long until the last is matched, and what it cost."""
        await self._empty(players)
        name, used_s, began_s = f"burst_{len(players)}", self._cpu_s(), time.perf_counter()
        await asyncio.gather(*map(self._come, players))
        await self._all_told(len(players))
        all_s = time.perf_counter() - began_s
        waits = list(self._took_s.values())
        return {
            f"{name}_matched_ratio": len(waits) / len(players),
            f"{name}_all_s": all_s,
            f"{name}_matches_per_s": len(waits) / 2 / all_s,
            f"{name}_p50_ms": 1000 * quantile(waits, 0.5),
            f"{name}_p99_ms": 1000 * quantile(waits, 0.99),
            f"{name}_each_us": 1e6 * (self._cpu_s() - used_s) / len(players),
        }

    async def steady(self, rate: int, seconds: float, waiting: int) -> dict[str, float]:
        """So many a second, each two that follow each other fitting, beside others who wait for long."""
        players, others = pairs(int(rate * seconds)), misfits(waiting)
        await self._empty([*players, *others])
        await asyncio.gather(*map(self._come, others))
        await asyncio.sleep(1.0)
        used_s = self._cpu_s()
        await _at_rate(rate, players, self._come)
        await self._all_told(len(players))
        waits = list(self._took_s.values())
        name = f"steady_{waiting}"
        return {
            f"{name}_matched_ratio": len(waits) / len(players),
            f"{name}_p50_ms": 1000 * quantile(waits, 0.5),
            f"{name}_p99_ms": 1000 * quantile(waits, 0.99),
            f"{name}_each_us": 1e6 * (self._cpu_s() - used_s) / len(players),
        }

    async def spread(self, rate: int, seconds: float, patience_s: float) -> dict[str, float]:
        """So many a second as they come, and how well they fit whom they meet."""
        players = strangers(int(rate * seconds))
        await self._empty(players)
        began_s = time.perf_counter()
        await _at_rate(rate, players, self._come)
        await asyncio.sleep(patience_s)
        waits = list(self._took_s.values())
        met_by_s = [self._asked_s[user_id] + took_s for user_id, took_s in self._took_s.items()]
        name = f"spread_{rate}"
        return {
            f"{name}_matched_ratio": len(waits) / len(players),
            f"{name}_matches_per_s": sum(met_s < began_s + seconds for met_s in met_by_s) / 2 / seconds,
            f"{name}_wait_p50_s": quantile(waits, 0.5),
            f"{name}_wait_p99_s": quantile(waits, 0.99),
            f"{name}_quality_mean_ratio": fmean(map(quality, self._costs)),
            f"{name}_quality_p1_ratio": quantile([quality(cost) for cost in self._costs], 0.01),
        }

    def _made(self, session: Session) -> None:
        self._costs.append(session.cost)

    def _cpu_s(self) -> float:
        """What this process and Valkey have used of the processors."""
        times = self._valkey.cpu_times()
        return time.process_time() + times.user + times.system

    async def _come(self, wish: Wish) -> None:
        """A player asks; when they are told at once, that was it."""
        self._asked_s[wish.user_id] = time.perf_counter()
        number = next(self._numbers)
        matchmaker = self._matchmakers[number % len(self._matchmakers)]
        entered = await matchmaker.enter(wish, Record(f"bench-{number}", 60.0), ORIGIN)
        if entered.what is Entry.MATCHED:
            self._told(wish.user_id)

    def _told(self, user_id: str) -> None:
        asked_s = self._asked_s.get(user_id)
        if asked_s is not None:
            self._took_s.setdefault(user_id, time.perf_counter() - asked_s)
            if len(self._took_s) >= self._wanted:
                self._all.set()

    async def _all_told(self, count: int) -> None:
        self._wanted = count
        self._all.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                if len(self._took_s) < count:
                    await self._all.wait()

    async def _empty(self, players: Sequence[Wish]) -> None:
        """A Redis with nothing but these players' sessions and their node's queue."""
        await self._wire.execute_command("FLUSHALL")
        await asyncio.sleep(1.0)  # the matchmakers notice
        self._asked_s.clear()
        self._took_s.clear()
        self._costs.clear()
        queue_id = keys.node_queue(NODE)
        await self._wire.execute_command("SADD", keys.QUEUE_IDS, queue_id)
        await self._wire.execute_command("HSET", keys.queue_meta(queue_id), "maxSize", QUEUE_SIZE)
        for first in range(0, len(players), BATCH):
            await self._wire.execute_commands(
                [
                    ("HSET", keys.session(wish.user_id), "serverId", NODE, "connectionId", first + number + 1)
                    for number, wish in enumerate(players[first : first + BATCH])
                ]
            )

    async def _read(self) -> None:
        """Note when events have come to the node."""
        queue_id, cursor = keys.node_queue(NODE), b"$"
        while True:
            answer = await self._reading.execute_command(
                "XREAD", "COUNT", 200, "BLOCK", int(BLOCK_S * 1000), "STREAMS", queue_id, cursor
            )
            for _, rows in answer or ():
                cursor = rows[-1][0]
                for _, fields in rows:
                    for delivery in _deliveries.decode(fields[1]):
                        if _event.decode(delivery.frame[HEADER_BYTES:]).type == MATCH_FOUND:
                            self._told(delivery.user_id or "")


async def _at_rate(rate: int, players: Sequence[Wish], come: Callable[[Wish], Awaitable[None]]) -> None:
    """Have them come, so many a second."""
    began_s = time.perf_counter()
    tasks = []
    for number, wish in enumerate(players):
        due_s = began_s + number / rate
        if (pause_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(pause_s)
        tasks.append(asyncio.ensure_future(come(wish)))
    await asyncio.gather(*tasks)
