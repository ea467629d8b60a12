"""The rate that a login worker reaches, and what a worker that stood still loses of it: nothing."""

import asyncio
from typing import cast

import pytest

from storage import keys
from tests.storage.room import Room
from tests.storage.test_admission_rate import WINDOW_MS, held, not_lost
from tests.system.cluster import Cluster, eventually

pytestmark = pytest.mark.servers

RATE = 6000
PLAYERS = 1600


def owed(cluster: Cluster, since_ms: int) -> float | None:
    """The permission that is owed, as it was written down since a time."""
    found = cast("dict[str, str]", cluster.redis.hgetall(keys.PORTAL_BUCKET))
    return float(found["owed"]) if int(found["at"]) > since_ms else None


async def test_what_a_frozen_worker_missed_is_made_good(cluster: Cluster) -> None:
    cluster.settings |= {"login.admit_rate": RATE, "login.pod_count": 1}
    worker = cluster.start(nodes=0)["login-1"]
    room = Room(str(cluster.settings["redis.url"]))
    await room.settings.pause("kim")
    await eventually(lambda: cluster.redis.hget(keys.PORTAL_BUCKET, "rate") == "0", "the pause is seen")
    await room.crowd(PLAYERS)
    await room.settings.resume("kim")

    await eventually(lambda: int(cluster.redis.zcard(keys.PORTAL_READY)) >= 200, "the first come in")
    worker.freeze()
    await asyncio.sleep(2.5)
    thawed_ms = await room.now_ms()
    worker.thaw()
    await eventually(lambda: owed(cluster, thawed_ms) == 0, "what was missed is made good")

    seen = await room.look()
    assert seen.waiting, "too few players for what is to be seen"
    assert 0 <= not_lost(seen, RATE) <= 1 + RATE / 600
    assert held(seen) == pytest.approx(not_lost(seen, RATE), abs=0.01)
    times = sorted(int(fields["readyAt"]) for fields in seen.tickets.values() if "readyAt" in fields)
    assert max(sum(at <= other <= at + WINDOW_MS for other in times) for at in times) <= RATE / 6
    await room.close()
