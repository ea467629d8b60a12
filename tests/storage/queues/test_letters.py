"""Dead letters, as an operator has them: seen, tried again, dropped."""

import pytest

from storage.queues import Busy, DeadLetters, UnknownQueue
from tests.storage.queues.making import Peer, queue


async def give_up(peer: Peer, message: bytes) -> None:
    """Publish a message to the queue `jobs`, and give up on it."""
    await peer.publish("jobs", [message])
    (entry,) = await peer.subscribe([queue("jobs", max_size=1)], "one").read(1)
    assert await peer.server.dead_letter(entry, "CRASHED")


async def test_a_dead_letter_is_tried_again_once(peer: Peer) -> None:
    await peer.server.create(queue("jobs", max_size=1))
    letters = DeadLetters(peer.redis)
    await give_up(peer, b"job")
    assert await letters.counts(["jobs", "none"]) == {"jobs": 1, "none": 0}
    (letter,) = await letters.of("jobs", 10)
    assert (letter.message, letter.cause, letter.task_id) == (b"job", "CRASHED", None)
    assert await letters.get("jobs", letter.id) == letter
    assert [
        await letters.get("jobs", text) for text in ("x", "-", letter.id.partition("-")[0], "9" * 30)
    ] == [None] * 4

    assert await letters.requeue("jobs", letter.id)

    assert not await letters.requeue("jobs", letter.id)
    assert await peer.stored("jobs") == [b"job"]
    assert await letters.get("jobs", letter.id) is None


async def test_a_full_or_lost_queue_keeps_the_letter(peer: Peer) -> None:
    await peer.server.create(queue("jobs", max_size=1))
    letters = DeadLetters(peer.redis)
    await give_up(peer, b"job")
    (letter,) = await letters.of("jobs", 10)
    await peer.publish("jobs", [b"another"])

    with pytest.raises(Busy):
        await letters.requeue("jobs", letter.id)
    await peer.server.delete("jobs")
    with pytest.raises(UnknownQueue):
        await letters.requeue("jobs", letter.id)

    assert await letters.drop("jobs", letter.id)
    assert not await letters.drop("jobs", letter.id)
