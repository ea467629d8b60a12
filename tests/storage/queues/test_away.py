"""Redis goes away and comes back: the same objects go on, and nothing that was accepted is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from protocol.envelope import Delivery
from protocol.queues import QueueType
from storage import keys
from storage.errors import StoreAway
from storage.queues import Entry, Subscription
from tests.servers import RedisServer
from tests.storage.queues.making import LONG_S, Outcomes, Peer, lanes, open_peer, queue

AWAY = [("stop", "start"), ("kill", "start"), ("pause", "resume")]


@asynccontextmanager
async def durable_peer(server: RedisServer) -> AsyncIterator[Peer]:
    """A peer of a Redis that has on disk what it has answered, so that a crash costs nothing."""
    async with open_peer(server.url) as peer:
        await peer.redis.config_set("appendfsync", "always")
        yield peer


async def drain(reader: Subscription) -> list[bytes]:
    """Read and claim until nothing is left; the messages in the order in which they came."""
    entries: list[Entry] = []
    while batch := await reader.read(1000):
        entries += batch
    return [entry.message for entry in entries]


@pytest.mark.parametrize(("leave", "come_back"), AWAY)
async def test_every_callback_hears_of_it_once_and_the_same_outbox_goes_on(
    own_redis: RedisServer, leave: str, come_back: str
) -> None:
    async with durable_peer(own_redis) as peer:
        for queue_id in ("jobs", keys.node_queue("SOCK001")):
            await peer.server.create(queue(queue_id))
        assert len((await peer.publish("jobs", [b"before"])).accepted()) == 1
        getattr(own_redis, leave)()
        outcomes = Outcomes()
        messages = [str(number).encode() for number in range(700)]
        for message in messages:
            peer.outbox.publish("jobs", message, outcomes.of(message))
            peer.outbox.deliver("SOCK001", Delivery(1, message), outcomes.of(b"frame " + message))
        peer.outbox.acknowledge(Entry("jobs", b"1-1", b""))
        await peer.outbox.flushed()
        assert len(outcomes.refused(StoreAway)) == 1400
        with pytest.raises(StoreAway):
            await peer.outbox.published("jobs", b"during")
        assert peer.outbox.take_counts()[1] >= 2
        getattr(own_redis, come_back)()
        await peer.outbox.published("jobs", b"after")
        assert (await peer.stored("jobs"))[0] == b"before"
        assert (await peer.stored("jobs"))[-1] == b"after"
        assert all(len(calls) == 1 for calls in outcomes.by_message.values())


@pytest.mark.parametrize(("leave", "come_back"), [("stop", "start"), ("pause", "resume")])
async def test_what_was_accepted_while_redis_came_and_went_is_there_once(
    own_redis: RedisServer, leave: str, come_back: str
) -> None:
    outcomes = Outcomes()
    async with durable_peer(own_redis) as peer:
        await peer.server.create(queue(max_size=1_000_000))
        stop = asyncio.Event()

        async def publish() -> None:
            number = 0
            while not stop.is_set():
                for _ in range(40):
                    message = str(number).encode()
                    peer.outbox.publish("jobs", message, outcomes.of(message))
                    number += 1
                await asyncio.sleep(0.001)

        publishing = asyncio.create_task(publish())
        for _ in range(2):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(getattr(own_redis, leave))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(getattr(own_redis, come_back))
        await asyncio.sleep(0.1)
        stop.set()
        await publishing
        await peer.outbox.flushed()
        stored = await peer.stored("jobs")
    assert all(len(calls) == 1 for calls in outcomes.by_message.values())
    assert len(stored) == len(set(stored)), "a message was sent twice"
    assert set(outcomes.accepted()) <= set(stored)
    # Of those that were not accepted the outcome is unknown: they may be there, but none by another name.
    assert set(stored) <= set(outcomes.by_message)
    assert stored == sorted(stored, key=int)


@pytest.mark.parametrize(("leave", "come_back"), AWAY)
@pytest.mark.parametrize("many", [False, True], ids=["one queue", "lanes"])
async def test_the_same_reader_goes_on(
    own_redis: RedisServer, leave: str, come_back: str, many: bool
) -> None:
    async with durable_peer(own_redis) as peer:
        messages = lanes() if many else lanes()[:1]
        reader = peer.subscribe(messages, block_s=0.2)
        await reader.create()
        queue_id = messages[0].data.queue_id
        await peer.publish(queue_id, [b"1", b"2"])
        (first,) = await reader.read(1)
        getattr(own_redis, leave)()
        answers = await asyncio.gather(
            reader.read(1),
            reader.claim(LONG_S),
            reader.renew({queue_id: [first.id]}),
            reader.create(),
            reader.tidy(QueueType.JOB),
            reader.leave(),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {StoreAway}
        getattr(own_redis, come_back)()
        await reader.renew({queue_id: [first.id]})
        await peer.publish(queue_id, [b"3"])
        got = await drain(reader)
        # A paused Redis may have answered a reader that was no longer there: a later claim finds those.
        await asyncio.sleep(0.01)
        while (entry := await reader.claim(0.005)) is not None:
            got.append(entry.message)
            await peer.acknowledge([entry])
            await asyncio.sleep(0.01)
        assert {b"2", b"3"} <= set(got) <= {b"1", b"2", b"3"}


async def test_a_reader_that_waits_hears_of_it(own_redis: RedisServer) -> None:
    async with durable_peer(own_redis) as peer:
        reader = peer.subscribe([queue()], block_s=30.0)
        await reader.create()
        reading = asyncio.create_task(reader.read(10))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(own_redis.kill)
        with pytest.raises(StoreAway):
            await reading
        await asyncio.to_thread(own_redis.start)
        await peer.publish("jobs", [b"1"])
        assert [entry.message for entry in await reader.read(10)] == [b"1"]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restarted_redis_knows_who_held_what(own_redis: RedisServer, end: str) -> None:
    async with durable_peer(own_redis) as peer:
        messages = lanes()
        reader = peer.subscribe(messages)
        await reader.create()
        for message in messages:
            await peer.publish(message.data.queue_id, [b"1", b"2", b"3"])
        entries = await reader.read(6)
        twice = await peer.subscribe(messages, "heir").claim(0)
        await peer.acknowledge(entries[1:2])
        assert twice is not None
        before = await peer.server.statistics([message.data.queue_id for message in messages])
        await asyncio.to_thread(getattr(own_redis, end))
        await asyncio.to_thread(own_redis.start)
        after = await peer.server.statistics([message.data.queue_id for message in messages])
        assert [(each.length, each.pending, each.consumers) for each in after] == [
            (each.length, each.pending, each.consumers) for each in before
        ]
        again = await reader.claim(0)
        assert again is not None
        assert (again.id, again.deliveries) == (twice.id, 3)


async def test_a_full_memory_refuses_messages_and_lets_queues_empty(own_redis: RedisServer) -> None:
    async with durable_peer(own_redis) as peer:
        messages = lanes()
        reader = peer.subscribe(messages)
        await reader.create()
        high, normal, low = (message.data.queue_id for message in messages)
        for queue_id in (high, normal, low):
            await peer.publish(queue_id, [b"1", b"2"])
        await peer.redis.config_set("maxmemory", 1)
        assert len((await peer.publish(high, [b"3"])).refused(StoreAway)) == 1
        entries = await reader.read(6)
        assert len(entries) == 6
        await reader.renew({high: [entry.id for entry in entries if entry.queue_id == high]})
        claimed = await reader.claim(0)
        assert claimed is not None
        assert await peer.server.dead_letter(claimed, "CRASHED") is True
        await peer.acknowledge(entries)
        await reader.leave()
        now = await peer.server.statistics([high, normal, low])
        assert [(each.length, each.pending, each.consumers) for each in now] == [(0, 0, 0)] * 3
        assert await peer.server.delete(low) == 0
        await peer.redis.config_set("maxmemory", 0)
        assert (await peer.publish(high, [b"4"])).accepted() == [b"4"]


async def test_a_peer_can_start_before_redis(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with open_peer(own_redis.url) as peer:
        reader: Subscription = peer.subscribe([queue()])
        with pytest.raises(StoreAway):
            await reader.create()
        assert len((await early(peer)).refused(StoreAway)) == 1
        own_redis.start()
        await reader.create()
        assert len((await early(peer)).accepted()) == 1


async def early(peer: Peer) -> Outcomes:
    return await peer.publish("jobs", [b"early"])
