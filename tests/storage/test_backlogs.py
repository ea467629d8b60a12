"""Backlogs as operators see and clear them."""

import pytest

from protocol.queues import QueueType
from storage.audit import Audit
from storage.backlogs import BATCH, Backlogs, KeptQueue
from storage.dismissals import Dismissals
from storage.queues import UnknownQueue
from storage.servers import ServerLease
from tests.storage.queues.making import Peer, open_peer, queue

REQUESTS = QueueType.REQUEST


async def lines(peer: Peer) -> list[str]:
    return [line.partition("|")[2] for line in await Audit(peer.redis).tail(100)]


async def test_peek_says_who_holds_what_and_takes_nothing(redis_url: str) -> None:
    async with open_peer(redis_url) as peer:
        reader = peer.subscribe([queue()])
        await reader.create()
        await peer.publish("jobs", [b"held", b"waiting"])
        await reader.read(1)
        held, waiting = await Backlogs(peer.redis).peek("jobs", 10)
        assert (held.message, held.deliveries, waiting.message, waiting.deliveries) == (
            b"held",
            1,
            b"waiting",
            0,
        )
        assert held.holder
        assert waiting.holder is None
        assert len(await Backlogs(peer.redis).peek("jobs", 1)) == 1
        assert [entry.message for entry in await reader.read(10)] == [b"waiting"]
        with pytest.raises(UnknownQueue, match="no queue nobody"):
            await Backlogs(peer.redis).peek("nobody", 1)


async def test_purge_takes_what_nobody_holds_and_is_written_down(redis_url: str) -> None:
    async with open_peer(redis_url) as peer:
        reader = peer.subscribe([queue(queue_type=REQUESTS)])
        await reader.create()
        await peer.publish("jobs", [str(number).encode() for number in range(BATCH + 3)])
        (held,) = await reader.read(1)
        assert await Backlogs(peer.redis).purge("jobs", "k|m") == BATCH + 2
        assert [entry.entry_id for entry in await Backlogs(peer.redis).peek("jobs", 9)] == [held.id.decode()]
        assert await Backlogs(peer.redis).purge("jobs", "kim") == 0
        await peer.publish("jobs", [b"later"])
        assert [entry.message for entry in await reader.read(10)] == [b"later"]
        assert await lines(peer) == [
            f"k%7Cm|queue:purge|queue:jobs:{BATCH + 3}->3|ALLOWED|lobbyctl",
            "k%7Cm|queue:purge|queue:jobs:3->1|ALLOWED|lobbyctl",
        ]


@pytest.mark.parametrize("kind", [QueueType.JOB, QueueType.EVENT, QueueType.TASK])
async def test_what_was_promised_is_not_purged(valkey_url: str, kind: QueueType) -> None:
    async with open_peer(valkey_url) as peer:
        reader = peer.subscribe([queue(queue_type=kind)])
        await reader.create()
        await peer.publish("jobs", [b"promised"])
        with pytest.raises(KeptQueue, match="dead_letters:jobs"):
            await Backlogs(peer.redis).purge("jobs", "kim")
        assert len(await Backlogs(peer.redis).peek("jobs", 9)) == 1
        assert await lines(peer) == []


async def test_a_dismissal_is_for_one_life_of_a_process(redis_url: str) -> None:
    async with open_peer(redis_url) as peer:
        dismissals = Dismissals(peer.redis)
        assert await dismissals.dismiss("SOCK001", "kim") is None
        assert await lines(peer) == []
        first = ServerLease(peer.redis, "SOCK001", "first", 30)
        assert await first.claim() is None
        assert not await first.is_dismissed()
        holder = await dismissals.dismiss("SOCK001", "kim")
        assert holder is not None
        assert holder.boot_id == "first"
        assert await first.is_dismissed()
        await first.release()
        second = ServerLease(peer.redis, "SOCK001", "second", 30)
        assert await second.claim() is None
        assert not await second.is_dismissed()
        assert await lines(peer) == ["kim|server:drain|server:SOCK001|ALLOWED|lobbyctl"]
