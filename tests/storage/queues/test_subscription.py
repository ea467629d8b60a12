"""Reading: shares, order, waiting, and queues that Redis loses."""

import asyncio
from collections import Counter

import pytest

from storage.queues import GROUP, Entry, Subscription
from tests.storage.queues.making import Peer, lanes, queue

LANES = lanes()
LANE_IDS = [message.data.queue_id for message in LANES]
HIGH, NORMAL, LOW = LANE_IDS


async def fill(peer: Peer, queue_id: str, count: int) -> list[bytes]:
    messages = [f"{queue_id} {number}".encode() for number in range(count)]
    assert (await peer.publish(queue_id, messages)).accepted() == messages
    return messages


async def read_until(reader: Subscription, count: int, limit: int = 100) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < count:
        entries += await reader.read(limit)
    return entries


def messages_of(entries: list[Entry], queue_id: str) -> list[bytes]:
    return [entry.message for entry in entries if entry.queue_id == queue_id]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 10, 25, 64, 200])
async def test_lanes_that_all_have_a_backlog_share_by_weight(peer: Peer, limit: int) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    sent = {queue_id: await fill(peer, queue_id, 400) for queue_id in LANE_IDS}
    # In full rounds of ten the shares are exact, however small the bites.
    entries = [entry for _ in range(10 if limit < 64 else 1) for entry in await reader.read(limit)]
    taken = Counter(entry.queue_id for entry in entries)
    assert taken.total() == limit * (10 if limit < 64 else 1)
    assert taken[HIGH] == pytest.approx(taken.total() * 0.6, abs=1)
    assert taken[NORMAL] == pytest.approx(taken.total() * 0.3, abs=1)
    assert taken[LOW] == pytest.approx(taken.total() * 0.1, abs=1)
    for queue_id in LANE_IDS:
        assert messages_of(entries, queue_id) == sent[queue_id][: taken[queue_id]]


@pytest.mark.parametrize("queue_id", LANE_IDS)
@pytest.mark.parametrize("limit", [1, 5, 30])
async def test_one_lane_alone_gets_all(peer: Peer, queue_id: str, limit: int) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    sent = await fill(peer, queue_id, 30)
    bites = [await reader.read(limit) for _ in range(30 // limit)]
    assert [len(bite) for bite in bites] == [limit] * (30 // limit)
    assert [entry.message for bite in bites for entry in bite] == sent


async def test_lanes_that_get_a_backlog_later_share_from_then_on(peer: Peer) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    await fill(peer, NORMAL, 400)
    for _ in range(3):
        assert Counter(entry.queue_id for entry in await reader.read(20)) == {NORMAL: 20}
    for queue_id in (HIGH, LOW):
        await fill(peer, queue_id, 400)
    await reader.read(20)
    for _ in range(3):
        taken = Counter(entry.queue_id for entry in await reader.read(20))
        assert taken == {HIGH: 12, NORMAL: 6, LOW: 2}


async def test_what_one_lane_leaves_goes_to_the_others(peer: Peer) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    for queue_id, count in ((HIGH, 2), (NORMAL, 10), (LOW, 100)):
        await fill(peer, queue_id, count)
    taken = Counter(entry.queue_id for entry in await reader.read(40))
    assert taken == {HIGH: 2, NORMAL: 10, LOW: 28}


@pytest.mark.parametrize("many", [False, True], ids=["one queue", "lanes"])
async def test_an_idle_reader_waits_for_a_message(peer: Peer, many: bool) -> None:
    reader = peer.subscribe(LANES if many else [LANES[2]], block_s=30.0)
    await reader.create()
    reading = asyncio.create_task(reader.read(10))
    await asyncio.sleep(0.05)
    assert not reading.done()
    sent = await fill(peer, LOW, 3)
    assert [entry.message for entry in await reading] == sent


async def test_nothing_to_read_is_an_empty_list_after_the_block_time(peer: Peer) -> None:
    for reader in (peer.subscribe(LANES), peer.subscribe([queue()])):
        await reader.create()
        assert await reader.read(10) == []


async def test_messages_are_any_bytes(peer: Peer) -> None:
    messages = [b"", b"\r\n$3\r\nabc\r\n", bytes(range(256)), b"\xff" * 1_000_000, "대기열".encode(), b"m"]
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", messages)
    assert [entry.message for entry in await reader.read(100)] == messages
    claimed = [await reader.claim(0) for _ in messages]
    # The lease of 0 s takes the oldest each time: it is claimed again and again.
    assert {entry.message for entry in claimed if entry} == {b""}


async def test_two_readers_never_get_the_same_entry(peer: Peer) -> None:
    readers = [peer.subscribe(LANES, name) for name in ("login-1", "login-2")]
    await readers[0].create()
    sent = [message for queue_id in LANE_IDS for message in await fill(peer, queue_id, 150)]
    got = await asyncio.gather(*(read_until(reader, 200, limit=7) for reader in readers))
    rest = await read_until(readers[0], 450 - sum(map(len, got)))
    assert sorted(entry.message for entry in [*got[0], *got[1], *rest]) == sorted(sent)


@pytest.mark.parametrize("block_s", [0.01, 30.0], ids=["between reads", "while it waits"])
@pytest.mark.parametrize("many", [False, True], ids=["one queue", "lanes"])
async def test_a_queue_that_redis_lost_is_created_again(peer: Peer, many: bool, block_s: float) -> None:
    reader = peer.subscribe(LANES if many else [LANES[0]], block_s=block_s)
    await reader.create()
    reading = asyncio.create_task(reader.read(10))
    await asyncio.sleep(0.05)
    await peer.redis.flushall()
    assert await reading == []
    if block_s < 1:
        assert await reader.read(10) == []
    sent = await fill(peer, HIGH, 2)
    assert [entry.message for entry in await reader.read(10)] == sent
    assert await peer.server.ids() == (sorted(LANE_IDS) if many else [HIGH])


@pytest.mark.parametrize("lost", LANE_IDS)
async def test_one_lost_lane_strands_nothing_of_the_others(peer: Peer, lost: str) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    for queue_id in LANE_IDS:
        await fill(peer, queue_id, 10)
    await peer.redis.delete(lost)
    assert await reader.read(20) == []
    held = [await peer.held(queue_id, "login-1") for queue_id in LANE_IDS]
    assert held == [[], [], []], "entries were taken that no reader knows of"
    assert len(await read_until(reader, 20)) == 20


async def test_a_group_that_was_destroyed_gets_all_again(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    sent = await fill(peer, "jobs", 3)
    await reader.read(1)
    await peer.redis.xgroup_destroy("jobs", GROUP)
    assert await reader.read(10) == []
    assert [entry.message for entry in await reader.read(10)] == sent


async def test_what_was_held_in_a_lost_queue_is_nobodys_business(peer: Peer) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    await fill(peer, HIGH, 1)
    (entry,) = await reader.read(10)
    await peer.redis.flushall()
    assert await reader.claim(0) is None
    await reader.renew({HIGH: [entry.id]})
    await reader.leave()
    await peer.acknowledge([entry])
    assert await peer.redis.keys() == []


async def test_leaving_keeps_the_name_while_entries_are_held(peer: Peer) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    await fill(peer, HIGH, 1)
    await fill(peer, LOW, 1)
    entries = await reader.read(10)
    await peer.acknowledge([entry for entry in entries if entry.queue_id == LOW])
    await reader.leave()
    now = await peer.server.statistics(LANE_IDS)
    assert [(each.pending, each.consumers) for each in now] == [(1, 1), (0, 0), (0, 0)]
    await peer.acknowledge(entries)
    await reader.leave()
    (high,) = await peer.server.statistics([HIGH])
    assert (high.length, high.pending, high.consumers) == (0, 0, 0)


async def test_a_reader_that_is_forgotten_while_it_waits_gets_its_message(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = peer.subscribe([queue()], block_s=30.0)
    await reader.create()
    assert await reader.claim(0) is None
    reading = asyncio.create_task(reader.read(10))
    await asyncio.sleep(0.05)
    monkeypatch.setattr("storage.queues.server.FORGET_AFTER_S", 0.0)
    assert await peer.server.forget_dead_consumers("jobs") == 1
    sent = await fill(peer, "jobs", 1)
    (entry,) = await reading
    assert entry.message == sent[0]
    assert await peer.held("jobs", "login-1") == [entry.id]


async def test_priorities_change_the_shares_and_without_them_they_are_as_before(peer: Peer) -> None:
    reader = peer.subscribe(LANES)
    await reader.create()
    for queue_id in LANE_IDS:
        await fill(peer, queue_id, 400)
    reader.weigh({HIGH: 0.5, LOW: 2.0})
    taken = Counter(entry.queue_id for entry in await reader.read(160))
    assert taken == {HIGH: 60, NORMAL: 60, LOW: 40}
    reader.weigh({})
    taken = Counter(entry.queue_id for entry in await reader.read(100))
    assert taken == {HIGH: 60, NORMAL: 30, LOW: 10}
