"""What others read of queues: how long they are, by which KEDA scales, and who holds how much."""

from typing import Any, cast

from protocol.queues import QueueType
from storage.queues import GROUP
from tests.storage.queues.making import Peer, queue


async def lag(peer: Peer, queue_id: str) -> int | None:
    """As XINFO GROUPS has it; None where Redis does not know it."""
    groups: list[dict[str, Any]] = await peer.redis.xinfo_groups(queue_id)
    (found,) = (each["lag"] for each in groups if each["name"] == GROUP.encode())
    return cast("int | None", found)


async def test_the_length_is_the_backlog_and_the_lag_is_lost(peer: Peer) -> None:
    """Redis knows no lag any more where the newest that was read is done with before an older one is."""
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", [b"one", b"two", b"three", b"four", b"five"])
    assert (await lag(peer, "jobs"), len(await peer.stored("jobs"))) == (5, 5)
    _, newest = await reader.read(2)
    assert (await lag(peer, "jobs"), len(await peer.stored("jobs"))) == (3, 5)
    await peer.acknowledge([newest])
    assert (await lag(peer, "jobs"), len(await peer.stored("jobs"))) == (None, 4)


async def test_who_holds_how_much_is_counted_over_all_queues_of_a_type(peer: Peer) -> None:
    jobs, more, requests = queue(), queue("more"), queue("requests", queue_type=QueueType.REQUEST)
    one, other = peer.subscribe([jobs, more, requests], "one"), peer.subscribe([jobs], "other")
    for reader in (one, other):
        await reader.create()
    assert await peer.server.holders(QueueType.JOB) == {}
    for queue_id in ("jobs", "more", "requests"):
        await peer.publish(queue_id, [b"first", b"second"])
    held = await one.read(6)
    assert len(held) == 6
    await peer.publish("jobs", [b"third"])
    assert len(await other.read(1)) == 1
    assert await peer.server.holders(QueueType.JOB) == {"one": 4, "other": 1}
    assert await peer.server.holders(QueueType.REQUEST) == {"one": 2}
    await peer.acknowledge([entry for entry in held if entry.queue_id != "requests"])
    assert await peer.server.holders(QueueType.JOB) == {"other": 1}
