"""Sending: one pipeline a turn, in order, each callback once, and a full queue that says so."""

import asyncio

import msgspec
import pytest

from protocol.envelope import Delivery
from storage import keys
from storage.errors import StoreAway
from storage.queues import Busy, UnknownQueue, outbox
from storage.queues.outbox import MAX_DELIVERIES_PER_ENTRY, MAX_MESSAGES_PER_CALL
from tests.storage.queues.making import LONG_S, Outcomes, Peer, fcalls, queue

NODE = "SOCK001"
NODE_QUEUE = keys.node_queue(NODE)


def numbered(count: int, prefix: str = "") -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


async def stored_deliveries(peer: Peer) -> list[list[Delivery]]:
    return [msgspec.msgpack.decode(entry, type=list[Delivery]) for entry in await peer.stored(NODE_QUEUE)]


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (2, 1), (500, 1), (501, 2), (5000, 10)])
async def test_what_gathers_in_a_turn_goes_in_few_calls(peer: Peer, count: int, calls: int) -> None:
    await peer.server.create(queue())
    await peer.redis.config_resetstat()
    messages = numbered(count)
    outcomes = await peer.publish("jobs", messages)
    assert outcomes.accepted() == messages
    assert await peer.stored("jobs") == messages
    assert await fcalls(peer.redis) == calls


async def test_a_turn_is_one_pipeline_whatever_it_holds(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.server.create(queue(NODE_QUEUE))
    await peer.publish("jobs", numbered(600))
    entries = await reader.read(600)
    peer.outbox.take_counts()
    for entry in entries:
        peer.outbox.deliver(NODE, Delivery(1, entry.message))
        peer.outbox.acknowledge(entry)
    peer.outbox.publish("jobs", b"next")
    await peer.outbox.flushed()
    assert peer.outbox.take_counts() == (1, 0)
    assert await peer.stored("jobs") == [b"next"]
    assert len(await stored_deliveries(peer)) == 5


async def test_order_by_queue_is_kept_over_many_turns(peer: Peer) -> None:
    outcomes = Outcomes()
    for queue_id in ("a", "b"):
        await peer.server.create(queue(queue_id))
    for number in range(1000):
        for queue_id in ("a", "b"):
            message = f"{queue_id}{number}".encode()
            peer.outbox.publish(queue_id, message, outcomes.of(message))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await peer.outbox.flushed()
    assert await peer.stored("a") == numbered(1000, "a")
    assert await peer.stored("b") == numbered(1000, "b")
    assert len(outcomes.accepted()) == 2000


@pytest.mark.parametrize("count", [12, 700])
async def test_a_full_queue_takes_the_first_and_trims_nothing(peer: Peer, count: int) -> None:
    await peer.server.create(queue(max_size=10))
    await peer.publish("jobs", numbered(3, "before "))
    messages = numbered(count)
    outcomes = await peer.publish("jobs", messages)
    assert outcomes.accepted() == messages[:7]
    assert outcomes.refused(Busy) == messages[7:]
    assert await peer.stored("jobs") == [*numbered(3, "before "), *messages[:7]]
    assert await peer.counts("jobs") == {"published": 10, "refused": count - 7}


async def test_there_is_room_again_after_an_acknowledgement(peer: Peer) -> None:
    reader = peer.subscribe([queue(max_size=2)])
    await reader.create()
    await peer.publish("jobs", numbered(2))
    (entry,) = await reader.read(1)
    assert len((await peer.publish("jobs", [b"still full"])).refused(Busy)) == 1
    await peer.acknowledge([entry])
    assert (await peer.publish("jobs", [b"fits"])).accepted() == [b"fits"]


async def test_an_unknown_queue_is_refused_and_not_made(peer: Peer) -> None:
    messages = numbered(3)
    assert (await peer.publish("nobody", messages)).refused(UnknownQueue) == messages
    assert await peer.redis.keys() == []


async def test_one_refusal_leaves_the_other_queues_alone(peer: Peer) -> None:
    await peer.server.create(queue("a"))
    await peer.server.create(queue("broken"))
    await peer.redis.set("broken", "no stream")
    outcomes = Outcomes()
    for queue_id in ("broken", "nobody", "a"):
        peer.outbox.publish(queue_id, queue_id.encode(), outcomes.of(queue_id.encode()))
    await peer.outbox.flushed()
    assert outcomes.refused(StoreAway) == [b"broken"]
    assert outcomes.refused(UnknownQueue) == [b"nobody"]
    assert outcomes.accepted() == [b"a"]


async def test_published_waits_and_raises(peer: Peer) -> None:
    with pytest.raises(UnknownQueue, match="jobs"):
        await peer.outbox.published("jobs", b"early")
    await peer.server.create(queue(max_size=1))
    await peer.outbox.published("jobs", b"first")
    with pytest.raises(Busy, match="jobs"):
        await peer.outbox.published("jobs", b"second")
    assert await peer.stored("jobs") == [b"first"]


async def test_who_stops_waiting_for_published_harms_nobody(peer: Peer) -> None:
    await peer.server.create(queue())
    impatient = asyncio.create_task(peer.outbox.published("jobs", b"1"))
    await asyncio.sleep(0)
    impatient.cancel()
    await peer.outbox.published("jobs", b"2")
    assert await peer.stored("jobs") == [b"1", b"2"]


async def test_flushed_waits_for_what_callbacks_send(peer: Peer) -> None:
    await peer.server.create(queue())
    left = 5

    def again(error: Exception | None) -> None:
        nonlocal left
        assert error is None
        if left:
            left -= 1
            peer.outbox.publish("jobs", b"again", again)

    again(None)
    await peer.outbox.flushed()
    assert len(await peer.stored("jobs")) == 5


async def test_acknowledging_what_is_gone_counts_nothing(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", numbered(3))
    entries = await reader.read(10)
    await peer.acknowledge([*entries, *entries])
    await peer.acknowledge(entries)
    assert await peer.counts("jobs") == {"published": 3, "acknowledged": 3}
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending) == (0, 0)


async def test_acknowledgements_wait_for_company_and_for_no_append(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ACKNOWLEDGE_S", LONG_S)
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", numbered(3))
    entries = await reader.read(3)
    await peer.redis.config_resetstat()
    for entry in entries:
        peer.outbox.acknowledge(entry)
        await peer.outbox.published("jobs", b"next")
    assert await peer.counts("jobs") == {"published": 6}
    await peer.outbox.flushed()
    assert await peer.counts("jobs") == {"published": 6, "acknowledged": 3}
    assert await fcalls(peer.redis) == 4


async def test_acknowledgements_go_out_by_themselves(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", numbered(3))
    for entry in await reader.read(3):
        peer.outbox.acknowledge(entry)
    while await peer.stored("jobs"):
        await asyncio.sleep(0.01)


async def test_thousands_of_acknowledgements_are_split(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", numbered(9000))
    entries = await reader.read(9000)
    await peer.redis.config_resetstat()
    await peer.acknowledge(entries)
    assert await fcalls(peer.redis) == 9000 // MAX_MESSAGES_PER_CALL
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending) == (0, 0)


@pytest.mark.parametrize("count", [1, MAX_DELIVERIES_PER_ENTRY, MAX_DELIVERIES_PER_ENTRY + 1, 300])
async def test_deliveries_to_a_node_share_entries(peer: Peer, count: int) -> None:
    await peer.server.create(queue(NODE_QUEUE))
    deliveries = [Delivery(number, bytes([number % 256]), answers=number) for number in range(count)]
    outcomes = Outcomes()
    for delivery in deliveries:
        peer.outbox.deliver(NODE, delivery, outcomes.of(str(delivery.connection_id).encode()))
    await peer.outbox.flushed()
    bundles = await stored_deliveries(peer)
    assert [delivery for bundle in bundles for delivery in bundle] == deliveries
    assert all(len(bundle) == MAX_DELIVERIES_PER_ENTRY for bundle in bundles[:-1])
    assert len(bundles) == -(-count // MAX_DELIVERIES_PER_ENTRY)
    assert len(outcomes.accepted()) == count


async def test_a_full_node_queue_refuses_whole_entries(peer: Peer) -> None:
    await peer.server.create(queue(NODE_QUEUE, max_size=1))
    outcomes = Outcomes()
    for message in numbered(300):
        peer.outbox.deliver(NODE, Delivery(1, message), outcomes.of(message))
    await peer.outbox.flushed()
    assert outcomes.accepted() == numbered(300)[:MAX_DELIVERIES_PER_ENTRY]
    assert outcomes.refused(Busy) == numbered(300)[MAX_DELIVERIES_PER_ENTRY:]
    assert len(await stored_deliveries(peer)) == 1


async def test_deliveries_keep_each_node_apart(peer: Peer) -> None:
    outcomes = Outcomes()
    await peer.server.create(queue(NODE_QUEUE))
    for server_id in (NODE, "SOCK404"):
        message = server_id.encode()
        peer.outbox.deliver(server_id, Delivery(7, message), outcomes.of(message))
    await peer.outbox.flushed()
    assert outcomes.refused(UnknownQueue) == [b"SOCK404"]
    assert await stored_deliveries(peer) == [[Delivery(7, NODE.encode())]]
