"""The event bus: every group gets everything, once, and what all have dealt with is gone."""

from protocol.announcement import Announcement, LoginCompleted
from protocol.queues import QueueType
from storage import keys
from storage.events import announce, event_bus, open_bus, read_announcement
from storage.queues import Entry, Subscription
from tests.storage.queues.making import LONG_S, Peer, queue

BUS = keys.EVENT_BUS


async def listener(peer: Peer, group: str, consumer: str = "one") -> Subscription:
    """A consumer of a group of the bus, which is there from now on."""
    subscription = peer.subscribe([event_bus()], consumer, weights=[1], group=group)
    await subscription.create()
    return subscription


async def read(subscription: Subscription) -> list[Entry]:
    return await subscription.read(100)


async def test_every_group_gets_everything_and_then_it_is_gone(peer: Peer) -> None:
    games, ranks = await listener(peer, "matching"), await listener(peer, "ranking")
    sent = [f"event {number}".encode() for number in range(5)]
    assert (await peer.publish(BUS, sent)).accepted() == sent
    for_games, for_ranks = await read(games), await read(ranks)
    assert [entry.message for entry in for_games] == [entry.message for entry in for_ranks] == sent

    await peer.acknowledge(for_games)
    assert await peer.stored(BUS) == sent
    await peer.acknowledge(for_ranks[1:3])
    assert await peer.stored(BUS) == [sent[0], *sent[3:]]
    await peer.acknowledge(for_ranks)
    assert await peer.stored(BUS) == []


async def test_what_a_group_has_not_read_yet_stays_for_it(peer: Peer) -> None:
    games, ranks = await listener(peer, "matching"), await listener(peer, "ranking")
    await peer.publish(BUS, [b"first"])
    entries = await read(games)
    await peer.publish(BUS, [b"second"])
    await peer.acknowledge([*entries, *await read(games)])
    assert [entry.message for entry in await read(ranks)] == [b"first", b"second"]


async def test_two_consumers_of_a_group_share(peer: Peer) -> None:
    one, two = await listener(peer, "ranking", "one"), await listener(peer, "ranking", "two")
    sent = [f"event {number}".encode() for number in range(10)]
    await peer.publish(BUS, sent)
    entries = [*await one.read(3), *await read(two)]
    assert sorted(entry.message for entry in entries) == sent
    await peer.acknowledge(entries)
    assert await peer.stored(BUS) == []


async def test_what_a_dead_consumer_held_is_claimed_in_its_own_group(peer: Peer) -> None:
    games, ranks = await listener(peer, "matching"), await listener(peer, "ranking", "dead")
    heir = await listener(peer, "ranking", "heir")
    await peer.publish(BUS, [b"event"])
    await peer.acknowledge(await read(games))
    await read(ranks)
    claimed = await heir.claim(0.0)
    assert claimed is not None
    assert (claimed.message, claimed.deliveries, claimed.group) == (b"event", 2, "ranking")
    assert await games.claim(0.0) is None
    await peer.acknowledge([claimed])
    assert await peer.stored(BUS) == []


async def test_one_group_gives_up_and_the_other_is_unharmed(peer: Peer) -> None:
    games, ranks = await listener(peer, "matching"), await listener(peer, "ranking")
    await peer.publish(BUS, [b"event"])
    (entry,) = await read(ranks)
    assert await peer.server.dead_letter(entry, "CRASHED")
    (letter,) = await peer.letters(BUS)
    assert (letter[b"m"], letter[b"group"]) == (b"event", b"ranking")
    (left,) = await read(games)
    await peer.acknowledge([left])
    assert await peer.stored(BUS) == []


async def test_who_reads_too_late_finds_it_among_the_dead_letters(peer: Peer) -> None:
    games, ranks = await listener(peer, "matching"), await listener(peer, "ranking")
    await peer.publish(BUS, [b"event"])
    await peer.server.create(queue(BUS, expire_s=0, queue_type=QueueType.EVENT), "ranking")
    assert await peer.server.expire(BUS, QueueType.EVENT, "ranking") == 1
    assert await peer.server.expire(BUS, QueueType.EVENT, "ranking") == 0
    assert await read(ranks) == []
    (letter,) = await peer.letters(BUS)
    assert (letter[b"cause"], letter[b"group"]) == (b"EXPIRED", b"ranking")
    await peer.server.create(queue(BUS, expire_s=LONG_S, queue_type=QueueType.EVENT), "ranking")
    await peer.acknowledge(await read(games))
    assert await peer.stored(BUS) == []


async def test_where_nobody_ever_listened_nothing_is_kept(peer: Peer) -> None:
    await open_bus(peer.redis)
    assert (await peer.publish(BUS, [b"unheard"])).accepted() == [b"unheard"]
    assert await peer.stored(BUS) == []
    assert await peer.counts(BUS) == {"unheard": 1}
    games = await listener(peer, "matching")
    await open_bus(peer.redis)
    await peer.publish(BUS, [b"heard"])
    assert [entry.message for entry in await read(games)] == [b"heard"]


async def test_a_fact_comes_as_it_was_announced(peer: Peer) -> None:
    games = await listener(peer, "matching")
    announce(peer.outbox, "login_completed:tid-1", "trace", LoginCompleted("minji"))
    await peer.outbox.flushed()
    (entry,) = await read(games)
    assert read_announcement(entry.message) == Announcement(
        "login_completed:tid-1", "trace", LoginCompleted("minji")
    )
