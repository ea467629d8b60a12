"""The admission loop measures how far the waits that players were told are off."""

import asyncio

from prometheus_client import REGISTRY

from storage import keys
from storage.connections import connect_wire
from storage.queues import Outbox
from tests.storage.room import open_room
from workers.login.admission import Admission

METRIC = "lobbyd_estimate_error_seconds"


def measured(direction: str) -> tuple[float, float]:
    """How many turns came early or late, and by how many seconds together."""
    labels = {"direction": direction}
    count, total = (REGISTRY.get_sample_value(f"{METRIC}_{part}", labels) for part in ("count", "sum"))
    return count or 0, total or 0


async def test_how_far_the_first_estimate_was_off(valkey_url: str) -> None:
    wire = connect_wire(valkey_url)
    async with open_room(valkey_url, rate=600) as room:
        first = await room.login("first")
        await room.admit()
        await room.finalize(first, "first")
        early, late = await room.login("early"), await room.login("late")
        untold = await room.login("untold")
        now = await room.now_ms()
        for tid, due_ms in ((early.tid, now + 60_000), (late.tid, now - 60_000)):
            await room.redis.hset(keys.ticket(tid), mapping={"estimatedAt": now, "due": due_ms})
        await room.redis.hdel(keys.ticket(untold.tid), "estimatedAt", "due")
        before = measured("early"), measured("late")

        loop = asyncio.create_task(Admission(room.tickets, Outbox(wire), 60.0).run())
        while len((await room.look()).ready) < 3:
            await asyncio.sleep(0.02)
        loop.cancel()
        await asyncio.wait([loop])

    for was, now_is in zip(before, (measured("early"), measured("late")), strict=True):
        assert now_is[0] - was[0] == 1
        assert 30 < now_is[1] - was[1] < 90
    await wire.aclose()
