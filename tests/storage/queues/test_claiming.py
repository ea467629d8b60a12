"""Leases: an entry is its consumer's while that one renews it, and then another's, one at a time."""

import asyncio

import pytest

from storage.queues import Entry, Subscription
from tests.storage.queues.making import LONG_S, Peer, lanes, queue


async def holding(peer: Peer, count: int, consumer: str = "dead") -> tuple[Subscription, list[Entry]]:
    """A reader that has taken so many new entries of the queue `jobs`."""
    reader = peer.subscribe([queue()], consumer)
    await reader.create()
    await peer.publish("jobs", [f"{consumer} {number}".encode() for number in range(count)])
    entries = await reader.read(count)
    assert len(entries) == count
    return reader, entries


async def test_a_claim_takes_one_entry_the_oldest_first(peer: Peer) -> None:
    _, entries = await holding(peer, 3)
    heir = peer.subscribe([queue()], "heir")
    for entry in entries:
        assert await heir.claim(0) == Entry("jobs", entry.id, entry.message, deliveries=2)
        assert await peer.held("jobs", "heir") == [entry.id]
        await peer.acknowledge([entry])
    assert await heir.claim(0) is None
    assert await peer.counts("jobs") == {"published": 3, "claimed": 3, "acknowledged": 3}


async def test_nothing_is_claimed_within_the_lease(peer: Peer) -> None:
    _, entries = await holding(peer, 3)
    heir = peer.subscribe([queue()], "heir")
    assert await heir.claim(LONG_S) is None
    await peer.lapse(entries[1], "dead")
    assert await heir.claim(LONG_S) == Entry("jobs", entries[1].id, entries[1].message, deliveries=2)
    assert await heir.claim(LONG_S) is None


async def test_who_renews_keeps(peer: Peer) -> None:
    slow, entries = await holding(peer, 3, "slow")
    for entry in entries:
        await peer.lapse(entry, "slow")
    await slow.renew({"jobs": [entries[0].id, entries[2].id], "other": []})
    heir = peer.subscribe([queue()], "heir")
    claimed = await heir.claim(LONG_S)
    assert claimed is not None
    assert claimed.id == entries[1].id
    assert await heir.claim(LONG_S) is None
    assert await peer.held("jobs", "slow") == [entries[0].id, entries[2].id]


async def test_renewing_does_not_count_as_a_delivery(peer: Peer) -> None:
    slow, (entry,) = await holding(peer, 1)
    for _ in range(5):
        await slow.renew({"jobs": [entry.id]})
    claimed = await peer.subscribe([queue()], "heir").claim(0)
    assert claimed is not None
    assert claimed.deliveries == 2


async def test_renewing_takes_nothing_back(peer: Peer) -> None:
    slow, (entry,) = await holding(peer, 1)
    heir = peer.subscribe([queue()], "heir")
    assert await heir.claim(0) is not None
    await peer.lapse(entry, "heir")
    await slow.renew({"jobs": [entry.id]})
    assert await peer.held("jobs", "slow") == []
    assert await heir.claim(LONG_S) is not None, "the former owner renewed what is another's"


async def test_renewing_what_is_gone_does_nothing(peer: Peer) -> None:
    slow, entries = await holding(peer, 2)
    await peer.acknowledge(entries[:1])
    await peer.redis.xdel("jobs", entries[1].id)
    await slow.renew({"jobs": [entry.id for entry in entries]})
    assert await peer.held("jobs", "dead") == []


async def test_a_consumer_renews_thousands_at_once(peer: Peer) -> None:
    slow, entries = await holding(peer, 9000, "slow")
    for entry in entries[::3000]:
        await peer.lapse(entry, "slow")
    await slow.renew({"jobs": [entry.id for entry in entries]})
    assert await peer.subscribe([queue()], "heir").claim(LONG_S) is None


async def test_deliveries_grow_with_every_claim(peer: Peer) -> None:
    await holding(peer, 1)
    claimed = [await peer.subscribe([queue()], f"heir-{number}").claim(0) for number in range(4)]
    assert [entry.deliveries for entry in claimed if entry] == [2, 3, 4, 5]


async def test_the_former_owner_can_still_settle_an_entry(peer: Peer) -> None:
    _, (entry,) = await holding(peer, 1)
    heir = peer.subscribe([queue()], "heir")
    assert await heir.claim(0) is not None
    await peer.acknowledge([entry])
    await peer.acknowledge([entry])
    assert await heir.claim(0) is None
    assert await peer.counts("jobs") == {"published": 1, "claimed": 1, "acknowledged": 1}


async def test_entries_deleted_while_pending_do_not_wedge_claims(peer: Peer) -> None:
    _, entries = await holding(peer, 300)
    await peer.redis.xdel("jobs", *(entry.id for entry in entries[:250]))
    heir = peer.subscribe([queue()], "heir")
    claimed = await heir.claim(0)
    assert claimed is not None
    assert claimed.id == entries[250].id
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending) == (50, 50)
    await peer.redis.xdel("jobs", *(entry.id for entry in entries[250:]))
    assert await heir.claim(0) is None
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending) == (0, 0)


async def test_claims_go_through_the_lanes_in_order(peer: Peer) -> None:
    messages = lanes()
    dead = peer.subscribe(messages, "dead")
    await dead.create()
    for message in reversed(messages):
        await peer.publish(message.data.queue_id, [message.data.queue_id.encode()])
    entries = await dead.read(10)
    assert len(entries) == 3
    heir = peer.subscribe(messages, "heir")
    claimed = []
    while (entry := await heir.claim(0)) is not None:
        claimed.append(entry.queue_id)
        await peer.acknowledge([entry])
    assert claimed == [message.data.queue_id for message in messages]


@pytest.mark.parametrize("heirs", [2, 8])
async def test_racing_claims_get_different_entries(peer: Peer, heirs: int) -> None:
    _, entries = await holding(peer, 5)
    for entry in entries:
        await peer.lapse(entry, "dead")
    readers = [peer.subscribe([queue()], f"heir-{number}") for number in range(heirs)]
    claimed = await asyncio.gather(*(reader.claim(LONG_S) for reader in readers))
    ids = [entry.id for entry in claimed if entry]
    assert len(ids) == min(heirs, 5)
    assert sorted(ids) == [entry.id for entry in entries[: len(ids)]]
