"""The rush: a thousand players on two nodes, while login workers die again and again, and a node once."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from client import Player
from protocol.messages import Message
from protocol.messages.auth import Finalized
from protocol.messages.waiting import QueueReady
from storage import keys
from storage.admission import AdmissionSettings
from storage.tickets import Tickets
from tests.system.cluster import Cluster
from tests.system.conftest import run_cluster
from tests.system.guest import PASSWORD

pytestmark = pytest.mark.servers

PLAYERS = 1200
"""More than the rate lets in within one window."""

RATE = 6000
"""Players a minute."""

WINDOW_MS = 10_000
BURST_MS = 110
"""What the bucket may hold back for shorter windows: 100 ms and one player."""

WORKER_DIES_EVERY_S = 1.5
NODE_DIES_AFTER_S = 4
"""In a rush of 12 s: about as in one of 60 s a worker every 5 s, and a node once."""

SAMPLE_S = 0.1
AT_ONCE = 100

PATIENCE_S = 180.0
"""On a busy machine a thousand logins whose workers die often take long: what counts is how they end."""

LEDGER = ("waiting", "ready", "consumed", "cancelled", "expired")


@pytest.fixture
def stormy(tmp_path: Path, valkey_url: str, sqlite_url: str) -> Iterator[Cluster]:
    settings = {"login.admit_rate": RATE // 3, "login.pod_count": 3, "login.finalize_deadline_s": 60}
    for cluster in run_cluster(Cluster(tmp_path / "cluster", valkey_url, sqlite_url, settings)):
        yield cluster.start(nodes=2, logins=3)


class Rusher:
    """One player of the crowd, with what happened on the way."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.name = f"rusher-{number}"
        self.tid = ""
        self.signed_in: Finalized | None = None
        self.readies: Counter[str] = Counter()
        self.player = Player(cluster.endpoints, on_event=self._hear, patience_s=PATIENCE_S)

    async def register(self) -> None:
        await self.player.register(self.name, PASSWORD, f"{self.name}@example.com", self.name)

    async def come_in(self) -> None:
        """Log in, wait for the turn, and sign in."""
        self.tid = (await self.player.login(self.name, PASSWORD)).tid
        await self.player.wait_until_ready()
        self.signed_in = await self.player.finalize()

    def _hear(self, _: str, event: Message) -> None:
        if isinstance(event, QueueReady):
            self.readies[event.tid] += 1


class Samples:
    """What Redis held all along: the ledger, and the order of the waiting."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._tickets = Tickets(redis, 900)
        self.ledgers: list[dict[str, float]] = []
        self.arrivals: dict[str, float] = {}

    async def keep_taking(self) -> None:
        while True:
            self.ledgers.append(await self._tickets.ledger())
            waiting: Any = await self._redis.zrange(keys.PORTAL_WAITING, 0, -1, withscores=True)
            self.arrivals |= {tid.decode(): score for tid, score in waiting}
            await asyncio.sleep(SAMPLE_S)

    async def taken(self, condition: Callable[[], bool]) -> None:
        """Wait until what was seen is so."""
        while not condition():
            await asyncio.sleep(SAMPLE_S)


async def test_a_thousand_players_while_workers_and_a_node_die(stormy: Cluster) -> None:
    rushers = [Rusher(stormy, number) for number in range(PLAYERS)]
    for start in range(0, PLAYERS, AT_ONCE):
        await asyncio.gather(*(rusher.register() for rusher in rushers[start : start + AT_ONCE]))
    redis = Redis.from_url(str(stormy.settings["redis.url"]))
    samples = Samples(redis)
    going_on = [asyncio.create_task(work) for work in (samples.keep_taking(), keep_killing_workers(stormy))]

    # However slowly a busy machine deals with logins, most of them wait.
    door = AdmissionSettings(redis)
    await door.pause("the test")
    coming = asyncio.gather(*(rusher.come_in() for rusher in rushers))
    await samples.taken(lambda: len(samples.arrivals) > PLAYERS * 0.6)
    await door.resume("the test")
    await asyncio.sleep(NODE_DIES_AFTER_S)  # while they are admitted
    connections = [rusher.player.connection for rusher in rushers]
    stormy["SOCK001"].kill()
    await coming

    for task in going_on:
        task.cancel()
    await asyncio.wait(going_on)
    tickets: list[Any] = [stormy.redis.hgetall(keys.ticket(rusher.tid)) for rusher in rushers]
    everybody_came_in_once(rushers, tickets, await Tickets(redis, 900).ledger())
    stayed = [was is rusher.player.connection for rusher, was in zip(rushers, connections, strict=True)]
    assert sum(stayed) < PLAYERS
    for rusher, has_stayed in zip(rushers, stayed, strict=True):
        # Who comes back READY asks and is told: an event of before may have been heard as well.
        assert rusher.readies == {rusher.tid: 1} or not has_stayed
    ready_at = {rusher.tid: int(ticket["readyAt"]) for rusher, ticket in zip(rushers, tickets, strict=True)}
    the_rate_was_kept(ready_at.values())
    in_line = [ticket for ticket in tickets if "passedAt" not in ticket]
    the_order_was_kept([(int(ticket["issuedAt"]), int(ticket["readyAt"])) for ticket in in_line])
    # The same by the microsecond, for those who were seen waiting and were never passed over.
    passed = {rusher.tid for rusher, ticket in zip(rushers, tickets, strict=True) if "passedAt" in ticket}
    arrivals = {tid: arrival for tid, arrival in samples.arrivals.items() if tid not in passed}
    assert len(arrivals) > PLAYERS / 2
    the_order_was_kept([(arrival, ready_at[tid]) for tid, arrival in arrivals.items()])
    assert len(samples.ledgers) > 10
    for ledger in samples.ledgers:
        assert ledger["issued"] == sum(ledger[part] for part in LEDGER), ledger
    for rusher in rushers:
        rusher.player.close()
    await redis.aclose()


async def keep_killing_workers(cluster: Cluster) -> None:
    """Kill a login worker every now and then, each in its turn, and start it again."""
    for number in itertools.cycle((1, 2, 3)):
        await asyncio.sleep(WORKER_DIES_EVERY_S)
        cluster[f"login-{number}"].kill()
        # The next one only when this one is back: a busy machine starts none in the time.
        await asyncio.to_thread(cluster.start_worker, "login", number)


@pytest.mark.parametrize("how", ["killed", "asked to end"])
async def test_a_node_goes_while_players_wait(stormy: Cluster, how: str) -> None:
    stormy.redis.hset(keys.PORTAL_CONFIG, "totalRate", 600)
    rushers = [Rusher(stormy, number) for number in range(60)]
    await asyncio.gather(*(rusher.register() for rusher in rushers))
    coming = asyncio.gather(*(rusher.come_in() for rusher in rushers))
    await asyncio.sleep(1)  # while they wait

    if how == "killed":
        stormy["SOCK001"].kill()
    else:
        stormy["SOCK001"].asked_to_end()

    await coming
    tickets: list[Any] = [stormy.redis.hgetall(keys.ticket(rusher.tid)) for rusher in rushers]
    for rusher, ticket in zip(rushers, tickets, strict=True):
        assert rusher.signed_in is not None
        assert (ticket["uid"], ticket["status"]) == (rusher.name, "CONSUMED")
        assert stormy.redis.hget(keys.session(rusher.name), "login_count") == "1"
    in_line = [ticket for ticket in tickets if "passedAt" not in ticket]
    the_order_was_kept([(int(ticket["issuedAt"]), int(ticket["readyAt"])) for ticket in in_line])
    assert (stormy.redis.hget(keys.PORTAL_STATS, "issued")) == str(len(rushers))
    for rusher in rushers:
        rusher.player.close()


def everybody_came_in_once(
    rushers: Sequence[Rusher], tickets: Sequence[dict[str, str]], ledger: dict[str, float]
) -> None:
    for rusher, ticket in zip(rushers, tickets, strict=True):
        assert rusher.signed_in is not None
        assert rusher.signed_in.user_id == rusher.name == ticket["uid"]
        assert ticket["status"] == "CONSUMED"
    assert len({rusher.tid for rusher in rushers}) == PLAYERS
    assert (ledger["issued"], ledger["consumed"]) == (PLAYERS, PLAYERS)


def the_rate_was_kept(ready_at: Iterable[int]) -> None:
    """No more than the rate in any window of 10 s, nor more than twice that and a burst in a shorter one."""
    times = sorted(ready_at)
    for window_ms, most in (
        (WINDOW_MS, RATE * WINDOW_MS // 60_000),
        (1000, RATE * (2 * 1000 + BURST_MS) // 60_000),
    ):
        for first, over in zip(times, times[most:], strict=False):
            assert over - first > window_ms, f"more than {most} in {window_ms} ms"


def the_order_was_kept(arrived_and_ready: Sequence[tuple[float, int]]) -> None:
    """Who arrived earlier was READY earlier, or in the same moment."""
    ready_by_arrival = sorted(arrived_and_ready)
    latest = 0
    for _, together in groupby(ready_by_arrival, key=lambda pair: pair[0]):
        ready = [each for _, each in together]
        assert min(ready) >= latest
        latest = max(latest, *ready)
