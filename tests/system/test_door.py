"""The door follows what lies behind it: a worker that is gone closes it, one that is there again opens it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from protocol.messages.matching import Difficulty, FindMatch
from protocol.messages.monitor import Alert, AlertLevel, AlertState, Metrics, MonitorSubscribe
from protocol.messages.waiting import QueueReady, TicketStatus
from storage import keys
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.guest import Guest
from tests.system.test_monitoring import heard_of, make_admin

pytestmark = pytest.mark.servers

MOST_WAITING = 8
"""Requests that a lane takes here: half of them are as much as it should bear."""


@pytest.fixture(scope="module")
def gatehouse(servers_folder: Path) -> Iterator[Cluster]:
    """A cluster that is looked at often, and whose queues are short."""
    settings = {
        "monitoring.every_s": 0.3,
        "monitoring.priorities_every_s": 0.3,
        "monitoring.clear_after_s": 0.5,
        "queues.request_max_size": MOST_WAITING,
        "queues.lease_s": 0.5,
        "login.admit_rate": 6_000,
        "log.level": "debug",
        "socketd.request_timeout_s": 60.0,
    }
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start()
        for kind in ("matching", "operations"):
            cluster.start_worker(kind)
        yield cluster


@pytest.fixture
async def operator(gatehouse: Cluster) -> AsyncIterator[Guest]:
    """An operator's program that listens."""
    guest = await Guest.at(gatehouse.endpoints[0])
    name = f"operator-{uuid.uuid4().hex[:8]}"
    await guest.register(name)
    make_admin(gatehouse, name)
    await guest.sign_in(name)
    await guest.ask(MonitorSubscribe())
    yield guest
    guest.leave()


def rates(operator: Guest) -> list[float]:
    """The rates in force as an operator has heard of them, each once as long as it held."""
    return [rate for rate, _ in groupby(each.admission.rate_per_minute for each in operator.all(Metrics))]


async def newest(operator: Guest, samples: int = 1) -> Metrics:
    """A sample that is so many from now."""
    return await operator.hear(Metrics, len(operator.all(Metrics)) + samples)


async def test_the_door_follows_a_worker_behind_it_that_dies_and_comes_back(
    gatehouse: Cluster, operator: Guest
) -> None:
    await operator.hear(Metrics)
    player, newcomer = [await Guest.at(gatehouse.endpoints[0]) for _ in range(2)]
    names = [f"door-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    await player.sign_up(names[0])
    await newcomer.register(names[1])

    gatehouse["matching-1"].kill()
    asked = FindMatch(difficulty=Difficulty.EASY, level=5)
    asking = [asyncio.create_task(player.ask(asked)) for _ in range(MOST_WAITING // 2)]
    opened = await heard_of(operator, "door", AlertState.OPEN)
    if opened.level is not AlertLevel.CRITICAL:  # it was slowed first
        opened = await heard_of(operator, "door", AlertState.ESCALATED)
    assert "game_queue:normal is pressed to 1" in opened.message
    await eventually(lambda: gatehouse.redis.hget(keys.PORTAL_CONFIG, "totalRate") == "0", "nobody is let in")

    ticket = await newcomer.log_in(names[1])
    assert (await newcomer.stream(ticket)).status is TicketStatus.PENDING
    assert (await newest(operator, 4)).admission.waiting == 1
    assert newcomer.all(QueueReady) == []
    said = gatehouse.redis.hgetall(keys.queue_priority("game_queue:normal"))
    assert float(said["new_priority"]) > 1.4
    assert "4 entries" in said["reason"]

    back = gatehouse.start_worker("matching")
    await eventually(lambda: '"game_queue:normal": 1.' in back.log, "it shares its capacity accordingly")
    await newcomer.hear(QueueReady)
    await newcomer.finalize(ticket)
    closed = await heard_of(operator, "door", AlertState.CLOSED)
    assert closed.id == opened.id
    await newest(operator)
    assert rates(operator)[-3:] == [0.0, 3_000.0, 6_000.0], "one step at a time"
    about = [each.state for each in operator.all(Alert) if each.subject == "door"]
    assert about.count(AlertState.OPEN) == about.count(AlertState.CLOSED) == 1
    await asyncio.gather(*asking, return_exceptions=True)  # one waits, and so the others are refused
    for guest in (player, newcomer):
        guest.leave()
