"""How soon subscribers hear of a changed top: from the moment at which Redis has the change, and how often.

One subscriber at each node listens to all four boards. The first place of the all-time board is looked at all
the time; every score is better than all before, so it changes on all four boards in the same moment.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

from bench.harness import quantile, rounded
from bench.ranking_load import Meter, Player, Tops, settled
from bench.system import System
from protocol.messages import Message
from protocol.messages.ranking import BoardType, SubscribeRankings, UnsubscribeRankings
from storage import keys
from storage.boards import Board
from storage.connections import connect_wire
from storage.periods import ALL_TIME
from storage.placing import score_of
from storage.wire import Wire

LOOK_S = 0.003
QUIET_S = 1.2
QUIET_CHANGES = 5


class Watch:
    """What Redis has: the first place of the all-time board, and when updates of boards were told.

    `tops` are scores and when they were not there yet, at the last look: so a lag comes out too long by
    LOOK_S at most, never too short.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.tops: list[tuple[int, float]] = []
        self.told_ms: dict[str, list[int]] = {board_type.value: [] for board_type in BoardType}

    async def run(self) -> None:
        """Look for as long as it is not cancelled."""
        looked_s = time.perf_counter()
        fields = [f"{board_type}:told" for board_type in self.told_ms]
        while True:
            now_s = time.perf_counter()
            first, told = await self._wire.execute_commands(
                [
                    ("ZRANGE", Board(ALL_TIME).key, 0, 0, "REV", "WITHSCORES"),
                    ("HMGET", keys.RANKING_CHANGED, *fields),
                ]
            )
            score = score_of(float(first[1])) if first else -1
            if not self.tops or score > self.tops[-1][0]:
                self.tops.append((score, looked_s))
            for stamps, stamp in zip(self.told_ms.values(), told, strict=True):
                if stamp is not None and stamps[-1:] != [int(stamp)]:
                    stamps.append(int(stamp))
            looked_s = now_s
            await asyncio.sleep(LOOK_S)

    def lags_s(self, meter: Meter) -> list[float]:
        """From each change to each subscriber of each board."""
        return [
            heard_s - changed_s
            for tops in meter.tops.values()
            for changed_s, heard_s in _met(self.tops[1:], tops)
        ]

    def least_gap_ms(self) -> int:
        """The shortest time between two updates of one board, as Redis noted them."""
        return min(later - earlier for stamps in self.told_ms.values() for earlier, later in pairwise(stamps))


def submission_lags_s(meter: Meter) -> list[float]:
    """From each submission to each subscriber of each board."""
    return [
        heard_s - asked_s
        for tops in meter.tops.values()
        for asked_s, heard_s in _met(sorted(meter.asked), tops)
    ]


def _met(wanted: Sequence[tuple[int, float]], tops: Tops) -> Iterator[tuple[float, float]]:
    """When each score was wanted, and when a top with it or a better one was heard of. Scores rise."""
    at = 0
    for score, wanted_s in wanted:
        while at < len(tops) and tops[at][0] < score:
            at += 1
        if at == len(tops):
            return
        yield wanted_s, tops[at][1]


@asynccontextmanager
async def watched(system: System, players: Sequence[Player]) -> AsyncIterator[Watch]:
    """Have one player at each node hear of all boards, and look at what Redis has meanwhile."""
    subscribers = players[: len(system.ports)]
    wire = connect_wire(system.redis_url)
    watch = Watch(wire)
    looking = asyncio.create_task(watch.run())
    for subscriber in subscribers:
        for board_type in BoardType:
            subscriber.ask(SubscribeRankings(type=board_type))
    try:
        yield watch
    finally:
        for subscriber in subscribers:
            for board_type in BoardType:
                subscriber.ask(UnsubscribeRankings(type=board_type))
        looking.cancel()
        await asyncio.wait([looking])
        await wire.aclose()


async def quiet_ms(
    system: System, players: list[Player], meter: Meter, make: Callable[[], Message]
) -> dict[str, float]:
    """How long a change takes that follows a second without one: the median and the longest."""
    meter.clear()
    async with watched(system, players) as watch:
        for _ in range(QUIET_CHANGES):
            await asyncio.sleep(QUIET_S)
            players[-1].ask(make())
        await settled(players)
        lags_s = watch.lags_s(meter)
    return {
        "quiet_board_to_subscriber_p50_ms": rounded(quantile(lags_s, 0.5) * 1000),
        "quiet_board_to_subscriber_most_ms": rounded(max(lags_s) * 1000),
    }


def loaded_ms(watch: Watch, meter: Meter) -> dict[str, float]:
    """How long changes took to subscribers that came all the time, and how often these heard of a board."""
    boards_s, submissions_s = watch.lags_s(meter), submission_lags_s(meter)
    return {
        "board_to_subscriber_at_load_p50_ms": rounded(quantile(boards_s, 0.5) * 1000),
        "board_to_subscriber_at_load_p99_ms": rounded(quantile(boards_s, 0.99) * 1000),
        "submit_to_subscriber_at_load_p50_ms": rounded(quantile(submissions_s, 0.5) * 1000),
        "submit_to_subscriber_at_load_p99_ms": rounded(quantile(submissions_s, 0.99) * 1000),
        "least_between_updates_of_a_board_ms": watch.least_gap_ms(),
    }
