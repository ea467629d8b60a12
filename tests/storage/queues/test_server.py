"""Creating, inspecting and sweeping queues."""

import asyncio
import time

import pytest

from protocol.queues import QueueType
from storage import keys
from storage.queues import GROUP, Busy, Entry, UnknownQueue
from tests.storage.queues.making import LONG_S, Peer, lanes, queue


async def append_old(peer: Peer, queue_id: str, count: int) -> list[bytes]:
    """Put entries into an empty queue that look as if they were appended long ago."""
    messages = [f"old {number}".encode() for number in range(count)]
    long_ago_ms = int((time.time() - 2 * LONG_S) * 1000)
    async with peer.redis.pipeline(transaction=False) as pipeline:
        for number, message in enumerate(messages):
            pipeline.xadd(queue_id, {"m": message}, id=f"{long_ago_ms}-{number}")
        await pipeline.execute()
    return messages


async def test_create_records_what_the_message_says(peer: Peer) -> None:
    before_ms = int(time.time() * 1000)
    assert await peer.server.create(queue("SOCK001_Q", max_size=50, expire_s=2.5)) is True
    meta = await peer.redis.hgetall(keys.queue_meta("SOCK001_Q"))
    assert int(meta.pop(b"createdAt")) >= before_ms
    assert meta == {
        b"queueType": b"job",
        b"maxSize": b"50",
        b"expireTime": b"2.5",
        b"priority": b"normal",
        b"serverId": b"login-1",
    }
    assert await peer.server.ids() == ["SOCK001_Q"]


async def test_create_again_gives_new_settings_and_keeps_the_entries(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", [b"read", b"unread"])
    await reader.read(1)
    await peer.redis.hset(keys.queue_meta("jobs"), "setting", "of an older release")
    assert await peer.server.create(queue(max_size=3)) is False
    assert not await peer.redis.hexists(keys.queue_meta("jobs"), "setting")
    assert [entry.message for entry in await reader.read(10)] == [b"unread"]
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending, now.max_size) == (2, 2, 3)
    assert len((await peer.publish("jobs", [b"third", b"fourth"])).refused(Busy)) == 1


async def test_delete_takes_entries_meta_and_counts_and_leaves_dead_letters(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", [b"1", b"2", b"3"])
    (entry,) = await reader.read(1)
    await peer.server.dead_letter(entry, "CRASHED")
    assert await peer.server.delete("jobs") == 2
    assert await peer.redis.keys() == [keys.dead_letters("jobs").encode()]
    assert await peer.server.delete("jobs") == 0
    assert len((await peer.publish("jobs", [b"4"])).refused(UnknownQueue)) == 1
    await peer.server.create(queue())
    assert await peer.stored("jobs") == []


async def test_append_waits_for_one_message(peer: Peer) -> None:
    with pytest.raises(UnknownQueue, match="jobs"):
        await peer.server.append("jobs", b"early")
    await peer.server.create(queue(max_size=1))
    await peer.server.append("jobs", b"first")
    with pytest.raises(Busy, match="jobs"):
        await peer.server.append("jobs", b"second")
    assert await peer.stored("jobs") == [b"first"]


@pytest.mark.parametrize("queue_type", list(QueueType))
async def test_expiring_keeps_jobs_as_dead_letters_and_drops_the_rest(
    peer: Peer, queue_type: QueueType
) -> None:
    await peer.server.create(queue(queue_type=queue_type))
    old = await append_old(peer, "jobs", 3)
    await peer.publish("jobs", [b"young"])
    assert await peer.server.expire("jobs", queue_type) == 3
    assert await peer.stored("jobs") == [b"young"]
    letters = await peer.letters("jobs")
    assert [letter[b"m"] for letter in letters] == (old if queue_type.keeps_expired else [])
    assert all(letter[b"cause"] == b"EXPIRED" and letter[b"deliveries"] == b"0" for letter in letters)
    assert (await peer.counts("jobs"))["expired"] == 3
    assert await peer.server.expire("jobs", queue_type) == 0


async def test_expiring_never_touches_what_was_read(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    old = await append_old(peer, "jobs", 5)
    held = await reader.read(2)
    assert await peer.server.expire("jobs", QueueType.JOB) == 3
    assert await peer.stored("jobs") == old[:2]
    await peer.acknowledge(held)
    assert await peer.counts("jobs") == {"expired": 3, "acknowledged": 2}


async def test_expiring_goes_on_where_one_sweep_ends(peer: Peer) -> None:
    await peer.server.create(queue())
    await append_old(peer, "jobs", 2500)
    sweeps = [await peer.server.expire("jobs", QueueType.REQUEST) for _ in range(4)]
    assert sum(sweeps) == 2500
    assert all(sweeps[:2])
    assert await peer.stored("jobs") == []


async def test_a_dead_letter_says_what_it_was_and_why(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", [b"\x00\xff poison", b"neighbour"])
    await reader.read(2)
    entry = await reader.claim(0)
    assert entry is not None
    assert await peer.server.dead_letter(entry, "CRASHED") is True
    assert await peer.letters("jobs") == [
        {
            b"m": b"\x00\xff poison",
            b"queueId": b"jobs",
            b"entryId": entry.id,
            b"cause": b"CRASHED",
            b"deliveries": b"2",
            b"group": b"lobbyd",
        }
    ]
    assert await peer.stored("jobs") == [b"neighbour"]
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending) == (1, 1)


async def test_an_entry_that_is_gone_is_no_dead_letter(peer: Peer) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", [b"1"])
    (entry,) = await reader.read(1)
    await peer.acknowledge([entry])
    assert await peer.server.dead_letter(entry, "CRASHED") is False
    assert await peer.letters("jobs") == []
    assert await peer.counts("jobs") == {"published": 1, "acknowledged": 1}


async def test_only_consumers_that_hold_nothing_are_forgotten(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.server.create(queue())
    await peer.publish("jobs", [b"1", b"2"])
    for name in ("holds", "done"):
        entries = await peer.subscribe([queue()], name).read(1)
    await peer.acknowledge(entries)
    assert await peer.server.forget_dead_consumers("jobs") == 0
    monkeypatch.setattr("storage.queues.server.FORGET_AFTER_S", 0.0)
    await asyncio.sleep(0.01)
    assert await peer.server.forget_dead_consumers("jobs") == 1
    assert [consumer["name"] for consumer in await peer.redis.xinfo_consumers("jobs", GROUP)] == [b"holds"]


async def test_an_idle_consumer_that_claims_is_counted_and_not_taken_for_dead(peer: Peer) -> None:
    messages = lanes()
    queue_ids = [message.data.queue_id for message in messages]
    reader = peer.subscribe(messages)
    await reader.create()

    async def idle_ms() -> list[int]:
        consumers = [await peer.redis.xinfo_consumers(queue_id, GROUP) for queue_id in queue_ids]
        return [consumer["idle"] for (consumer,) in consumers]

    assert await reader.read(1) == []
    assert await reader.claim(0) is None
    assert [now.consumers for now in await peer.server.statistics(queue_ids)] == [1, 1, 1]
    await asyncio.sleep(0.02)
    before = await idle_ms()
    # Without end, should a claim not count as a sign of life.
    while not all(now < then for now, then in zip(await idle_ms(), before, strict=True)):
        assert await reader.claim(0) is None


async def test_sweeping_a_lost_queue_finds_nothing(peer: Peer) -> None:
    await peer.server.create(queue())
    await peer.redis.delete("jobs")
    assert await peer.server.expire("jobs", QueueType.JOB) == 0
    assert await peer.server.forget_dead_consumers("jobs") == 0
    assert await peer.server.dead_letter(Entry("jobs", b"1-1", b""), "CRASHED") is False
    await peer.redis.flushall()
    assert await peer.server.expire("jobs", QueueType.JOB) == 0
    assert await peer.server.statistics(["jobs"]) == []


async def test_statistics_say_how_each_queue_is(peer: Peer) -> None:
    await peer.server.create(queue("b", max_size=7, queue_type=QueueType.REQUEST))
    await peer.server.create(queue("a"))
    await append_old(peer, "b", 3)
    for name in ("one", "two"):
        await peer.subscribe([queue("b")], name).read(1)
    assert await peer.server.ids() == ["a", "b"]
    a, b = await peer.server.statistics(["a", "missing", "b"])
    assert (a.queue_id, a.queue_type, a.length, a.pending, a.consumers, a.oldest_age_sec) == (
        *("a", "job", 0, 0, 0, 0.0),
    )
    assert (b.queue_id, b.queue_type, b.length, b.pending, b.consumers, b.max_size) == (
        *("b", "request", 3, 2, 2, 7),
    )
    assert b.oldest_age_sec >= 2 * LONG_S - 1
    assert await peer.server.statistics([]) == []
