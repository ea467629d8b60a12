"""Whatever is done to three lanes by several consumers, a real server and a plain model of it agree."""

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import uvloop
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.exceptions import ResponseError

from protocol.envelope import QueueCreate
from protocol.queues import LANE_WEIGHTS, QueueType
from storage import keys
from storage.queues import GROUP, Busy, Entry, Subscription, UnknownQueue
from tests.storage.queues.making import LONG_S, Outcomes, Peer, lanes, queue
from tests.storage.queues.model import QueueModel

T = TypeVar("T")

MAX_SIZE = 9
LANES = {message.data.queue_id: message for message in lanes(max_size=MAX_SIZE)}
LANE_IDS = list(LANES)
WEIGHTS = dict(zip(LANE_IDS, LANE_WEIGHTS.values(), strict=True))

lane_ids = st.sampled_from(LANE_IDS)
numbers = st.integers(min_value=0, max_value=2)
picks = st.integers(min_value=0, max_value=60)
limits = st.integers(min_value=1, max_value=25)
mixed_tails = st.lists(st.tuples(lane_ids, st.binary(max_size=6)), min_size=1, max_size=24)


def any_unread(machine: "QueueMachine") -> bool:
    return any(model.unread for model in machine._queues.values())


def any_held(machine: "QueueMachine") -> bool:
    return any(model.pending for model in machine._queues.values())


def much_held(machine: "QueueMachine") -> bool:
    """Enough for it to matter when it is lost, and not so soon after the last loss."""
    return sum(len(model.pending) for model in machine._queues.values()) > MAX_SIZE


@dataclass
class Consumer:
    """A consumer and what it believes to hold, rightly or no longer so."""

    name: str
    queue_ids: list[str]
    subscription: Subscription
    entries: list[Entry] = field(default_factory=list)


class Found:
    """What a server holds of a queue, in the words of the model."""

    def __init__(self, stored: Any, pending: Any, letters: Any, counts: Any) -> None:
        self.entries = [(entry_id, fields[b"m"]) for entry_id, fields in stored]
        self.messages = [message for _, message in self.entries]
        messages = dict(self.entries)
        # A queue that does not exist has no group: its answer is an error.
        rows = [] if isinstance(pending, ResponseError) else pending
        self.owners = {
            messages[row["message_id"]]: (row["consumer"].decode(), row["times_delivered"]) for row in rows
        }
        self.letters = [
            (letter[b"m"], letter[b"cause"].decode(), int(letter[b"deliveries"])) for _, letter in letters
        ]
        self.counts = {name.decode(): int(count) for name, count in counts.items()}


class QueueMachine(RuleBasedStateMachine):
    """Two consumers read all lanes and one reads a single lane; each can die and have a successor."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._names = itertools.count()
        self._messages = itertools.count()
        self._queues = {queue_id: QueueModel(MAX_SIZE) for queue_id in LANE_IDS}
        self._peer = self._run(self._open(self.url))
        self._consumers = [self._consumer(LANE_IDS), self._consumer(LANE_IDS), self._consumer([LANE_IDS[1]])]

    def teardown(self) -> None:
        self._run(self._close())
        self._runner.close()

    @initialize(tails=mixed_tails, limit=limits)
    def begin(self, tails: list[tuple[str, bytes]], limit: int) -> None:
        self._run(self._consumers[0].subscription.create())
        for model in self._queues.values():
            model.create(MAX_SIZE)
        self.publish_and_read(tails, 1, limit)

    @rule(tails=mixed_tails, number=numbers, limit=limits)
    def publish_and_read(self, tails: list[tuple[str, bytes]], number: int, limit: int) -> None:
        self.publish(tails)
        self.read(number, limit)

    @rule(tails=mixed_tails)
    def publish(self, tails: list[tuple[str, bytes]]) -> None:
        """To several lanes in one turn, each message beginning with a number that no other has."""
        sent = [(queue_id, next(self._messages).to_bytes(4, "big") + tail) for queue_id, tail in tails]
        outcomes = self._run(self._publish(sent))
        for queue_id, model in self._queues.items():
            messages = [message for to, message in sent if to == queue_id]
            expected: list[type[Exception] | None] = [UnknownQueue] * len(messages)
            if model.exists:
                taken = model.publish(messages)
                expected = [*[None] * taken, *[Busy] * (len(messages) - taken)]
            assert [outcomes.kinds(message) for message in messages] == [[kind] for kind in expected]

    @rule(number=numbers, limit=limits)
    def read(self, number: int, limit: int) -> None:
        consumer = self._consumers[number]
        entries = self._run(consumer.subscription.read(limit))
        if not all(self._queues[queue_id].exists for queue_id in consumer.queue_ids):
            assert entries == []
            for queue_id in consumer.queue_ids:
                self._queues[queue_id].create(MAX_SIZE)
            return
        unread = {queue_id: len(self._queues[queue_id].unread) for queue_id in consumer.queue_ids}
        # A reader that knows of no backlog takes up to the limit from each queue.
        most = sum(min(limit, count) for count in unread.values())
        assert min(limit, sum(unread.values())) <= len(entries) <= most
        for queue_id in consumer.queue_ids:
            got = [entry.message for entry in entries if entry.queue_id == queue_id]
            if len(consumer.queue_ids) > 1:
                full_rounds = limit // sum(WEIGHTS.values())
                assert len(got) >= min(unread[queue_id], full_rounds * WEIGHTS[queue_id])
            assert got == self._queues[queue_id].read(len(got), consumer.name)
        assert all(entry.deliveries == 1 for entry in entries)
        consumer.entries += entries

    @precondition(any_held)
    @rule(number=numbers, chosen=st.sets(picks, min_size=1, max_size=6))
    def acknowledge(self, number: int, chosen: set[int]) -> None:
        entries = [entry for entry in map(self._pick(number), chosen) if entry]
        self._run(self._peer.acknowledge(entries))
        for entry in entries:
            self._queues[entry.queue_id].acknowledge(entry.message)

    @precondition(any_held)
    @rule(number=numbers)
    def die(self, number: int) -> None:
        self._consumers[number] = self._consumer(self._consumers[number].queue_ids)

    @precondition(any_held)
    @rule(number=numbers, queue_id=lane_ids)
    def let_leases_run_out(self, number: int, queue_id: str) -> None:
        """Of some entries of a lane, whoever holds them, so that also a dead consumer's are among them."""
        ids = {message: entry_id for entry_id, message in self._run(self._look())[queue_id].entries}
        for index, (message, held) in enumerate(self._queues[queue_id].pending.items()):
            if index % 3 == number:
                self._run(self._peer.lapse(Entry(queue_id, ids[message], message), held.consumer))
                held.lapsed = True

    @precondition(any_held)
    @rule(number=numbers, lease_s=st.sampled_from([0.0, LONG_S]))
    def claim(self, number: int, lease_s: float) -> None:
        consumer = self._consumers[number]
        entry = self._run(consumer.subscription.claim(lease_s))
        for queue_id in consumer.queue_ids:
            message = self._queues[queue_id].claim(consumer.name, anything=lease_s == 0)
            if message is not None:
                assert entry is not None
                assert (entry.queue_id, entry.message) == (queue_id, message)
                assert entry.deliveries == self._queues[queue_id].pending[message].deliveries
                consumer.entries.append(entry)
                return
        assert entry is None

    @precondition(any_held)
    @rule(number=numbers)
    def renew(self, number: int) -> None:
        consumer = self._consumers[number]
        believed = {
            queue_id: [entry.id for entry in consumer.entries if entry.queue_id == queue_id]
            for queue_id in consumer.queue_ids
        }
        self._run(consumer.subscription.renew(believed))
        for entry in consumer.entries:
            self._queues[entry.queue_id].renew(entry.message, consumer.name)

    @precondition(any_held)
    @rule(number=numbers, pick=picks)
    def dead_letter(self, number: int, pick: int) -> None:
        entry = self._pick(number)(pick)
        if entry is not None:
            moved = self._run(self._peer.server.dead_letter(entry, "CRASHED"))
            model = self._queues[entry.queue_id]
            assert moved is model.dead_letter(entry.message, "CRASHED", entry.deliveries)

    @precondition(any_unread)
    @rule(queue_id=lane_ids, queue_type=st.sampled_from([QueueType.JOB, QueueType.REQUEST]))
    def expire(self, queue_id: str, queue_type: QueueType) -> None:
        model = self._queues[queue_id]
        assert self._run(self._peer.server.expire(queue_id, queue_type)) == 0
        if model.exists:
            self._run(self._peer.server.create(queue(queue_id, max_size=model.max_size, expire_s=0.0)))
            expired = self._run(self._peer.server.expire(queue_id, queue_type))
            assert expired == model.expire(keep=queue_type.keeps_expired)
            self._run(self._peer.server.create(queue(queue_id, max_size=model.max_size)))

    @rule(queue_id=lane_ids, max_size=st.integers(min_value=1, max_value=MAX_SIZE))
    def create_again(self, queue_id: str, max_size: int) -> None:
        model = self._queues[queue_id]
        made = self._run(self._peer.server.create(queue(queue_id, max_size=max_size)))
        assert made is not model.exists
        model.create(max_size)

    @precondition(much_held)
    @rule(queue_id=lane_ids)
    def delete(self, queue_id: str) -> None:
        deleted = self._run(self._peer.server.delete(queue_id))
        assert deleted == self._queues[queue_id].lose()
        self._wait_for_other_ids()

    @precondition(much_held)
    @rule()
    def lose_everything(self) -> None:
        self._run(self._flush())
        for model in self._queues.values():
            model.lose()
            model.letters.clear()
        self._wait_for_other_ids()

    @precondition(any_held)
    @rule(number=numbers)
    def leave(self, number: int) -> None:
        self._run(self._consumers[number].subscription.leave())

    @rule()
    def lose_the_library(self) -> None:
        self._run(self._peer.lose_library())

    @invariant()
    def the_server_agrees(self) -> None:
        for queue_id, found in self._run(self._look()).items():
            model = self._queues[queue_id]
            assert found.messages == model.messages
            assert found.owners == {
                message: (held.consumer, held.deliveries) for message, held in model.pending.items()
            }
            assert found.letters == model.letters
            assert found.counts == dict(model.counts)
            gone = sum(found.counts.get(name, 0) for name in ("acknowledged", "deadLettered", "expired"))
            assert found.counts.get("published", 0) == gone + len(found.messages)

    @invariant()
    def statistics_agree(self) -> None:
        statistics = {each.queue_id: each for each in self._run(self._peer.server.statistics(LANE_IDS))}
        assert set(statistics) == {queue_id for queue_id, model in self._queues.items() if model.exists}
        for queue_id, now in statistics.items():
            model = self._queues[queue_id]
            assert (now.length, now.pending) == (len(model.messages), len(model.pending))
            assert now.max_size == model.max_size
            assert now.length <= MAX_SIZE

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _open(self, url: str) -> Peer:
        peer = Peer(url)
        await peer.redis.flushall()
        # A server looks for blocked readers whose time is up so many times a second.
        await peer.redis.config_set("hz", 500)
        return peer

    async def _close(self) -> None:
        await self._peer.redis.config_set("hz", 10)
        await self._peer.close()

    async def _publish(self, sent: list[tuple[str, bytes]]) -> Outcomes:
        outcomes = Outcomes()
        for queue_id, message in sent:
            self._peer.outbox.publish(queue_id, message, outcomes.of(message))
        await self._peer.outbox.flushed()
        return outcomes

    async def _flush(self) -> None:
        await self._peer.redis.flushall()

    def _consumer(self, queue_ids: list[str]) -> Consumer:
        name = f"login-{next(self._names)}"
        messages: list[QueueCreate] = [LANES[queue_id] for queue_id in queue_ids]
        weights = [WEIGHTS[queue_id] for queue_id in queue_ids]
        return Consumer(name, queue_ids, self._peer.subscribe(messages, name, weights=weights, block_s=0.001))

    def _pick(self, number: int) -> Any:
        entries = self._consumers[number].entries
        return lambda pick: entries[pick % len(entries)] if entries else None

    def _wait_for_other_ids(self) -> None:
        """Ids begin with the millisecond: a queue made again within it would give old ids to new entries."""
        self._run(asyncio.sleep(0.002))

    async def _look(self) -> dict[str, Found]:
        pipeline = self._peer.redis.pipeline(transaction=False)
        for queue_id in LANE_IDS:
            pipeline.xrange(queue_id)
            pipeline.xpending_range(queue_id, GROUP, "-", "+", 1000)
            pipeline.xrange(keys.dead_letters(queue_id))
            pipeline.hgetall(keys.queue_stats(queue_id))
        answers = iter(await pipeline.execute(raise_on_error=False))
        return {queue_id: Found(*itertools.islice(answers, 4)) for queue_id in LANE_IDS}


def test_queues_behave_as_their_model_does(redis_url: str) -> None:
    class Machine(QueueMachine):
        url = redis_url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
