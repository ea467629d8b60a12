"""Consumers of one process take turns, each with as much at once as its queues' priority says."""

import asyncio

from protocol.queues import QueueType
from storage.queues import Entry, Subscription
from tests.storage.queues.making import LONG_S, Peer, open_peer, queue
from workers.consumer import READ_MOST, Consumer, Settle


class Reads:
    """What a subscription is asked for, call by call."""

    def __init__(self, subscription: Subscription) -> None:
        self.limits: list[int] = []
        self._read = subscription.read
        subscription.read = self.read  # type: ignore[method-assign]

    async def read(self, limit: int) -> list[Entry]:
        self.limits.append(limit)
        return await self._read(limit)


async def taken(peer: Peer, priorities: dict[str, float], concurrency: int) -> list[int]:
    """How much a consumer with this priority asks for at a time, until it can hold no more."""
    subscription = peer.subscribe([queue("jobs")])
    await subscription.create()
    await peer.publish("jobs", [b"job %d" % number for number in range(concurrency)])
    reads, held = Reads(subscription), list[Settle]()
    is_full = asyncio.Event()

    async def hold(_: Entry, settle: Settle) -> None:
        held.append(settle)
        if len(held) == concurrency:
            is_full.set()

    consumer = Consumer(
        subscription, peer.outbox, peer.server, hold, QueueType.JOB,
        lease_s=LONG_S, max_deliveries=4, concurrency=concurrency,
    )  # fmt: skip
    consumer.weigh(priorities)
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(20):
        await is_full.wait()
        stopping = asyncio.create_task(consumer.stop())
        for settle in held:
            settle(None)
        await asyncio.gather(running, stopping)
    return reads.limits


async def test_a_consumer_takes_as_much_at_once_as_its_priority_says(valkey_url: str) -> None:
    async with open_peer(valkey_url) as peer:
        assert (await taken(peer, {}, 200))[0] == READ_MOST
        assert (await taken(peer, {"jobs": 0.5}, 200))[0] == READ_MOST // 2
        assert (await taken(peer, {"jobs": 2.0, "others": 0.5}, 200))[0] == 2 * READ_MOST
        assert max(await taken(peer, {"jobs": 2.0}, 5)) == 5
