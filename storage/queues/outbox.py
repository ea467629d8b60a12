"""What a process sends: everything that gathered while the last pipeline was under way goes in the next one.

One command per message gives 1,900 requests a second through two hops; one pipeline per turn gives
fifteen times that. So nobody awaits Redis for a message: what is to be done afterwards is a callback.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from redis.exceptions import RedisError

from protocol.codec import encode
from protocol.envelope import Delivery
from storage import keys
from storage.errors import StoreAway
from storage.functions import MOST_LOADS, is_missing
from storage.queues.entry import Entry, refusal
from storage.queues.server import LIBRARY
from storage.wire import Command, Wire

log = structlog.get_logger(__name__)

Done = Callable[[Exception | None], None]
"""Called once with None when Redis has it, else with Busy, UnknownQueue or StoreAway."""

MAX_MESSAGES_PER_CALL = 500
"""Arguments of one Function call, well below what Lua can unpack at once."""

MAX_DELIVERIES_PER_ENTRY = 128
"""Deliveries to one node that share an entry. See docs/decisions/0003."""

ACKNOWLEDGE_S = 0.01
"""How long what has been dealt with waits for company: nobody waits for it, and one acknowledgement costs
nearly as much as one of a hundred. See docs/decisions/0032."""

MAX_ENTRY_BYTES = 262_144
"""Frames that share an entry; a longer frame has one to itself."""

_Waiting = tuple[Delivery, Done | None]
_Sent = tuple[bytes, tuple[Done | None, ...]]
_Command = tuple[Command, Callable[[Any], None]]


class Outbox:
    """Gathers appends and acknowledgements and sends them in one pipeline at a time, in order by queue.

    Appends go out at once, acknowledgements within ACKNOWLEDGE_S.
    """

    def __init__(self, redis: Wire) -> None:
        self._redis = redis
        self._messages: dict[str, list[_Sent]] = defaultdict(list)
        self._deliveries: dict[str, list[_Waiting]] = defaultdict(list)
        self._acknowledgements: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self._are_due = False
        self._gathered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sends = 0
        self._failures = 0

    def publish(self, queue_id: str, message: bytes, done: Done | None = None) -> None:
        """Append `message` to a queue."""
        self._messages[queue_id].append((message, (done,)))
        self._wake()

    def deliver(self, server_id: str, delivery: Delivery, done: Done | None = None) -> None:
        """Send `delivery` to a node. Those that gather share entries of the node's queue."""
        self._deliveries[server_id].append((delivery, done))
        self._wake()

    def acknowledge(self, entry: Entry) -> None:
        """Remove an entry that has been dealt with. Lost when Redis is away: the entry comes again."""
        if not self._acknowledgements:
            self._idle.clear()
            asyncio.get_running_loop().call_later(ACKNOWLEDGE_S, self._acknowledge_now)
        self._acknowledgements[entry.queue_id, entry.group].append(entry.id)

    async def published(self, queue_id: str, message: bytes) -> None:
        """Append `message` and wait for it. Raises Busy, UnknownQueue or StoreAway."""
        outcome, done = _outcome()
        self.publish(queue_id, message, done)
        await outcome

    async def delivered(self, server_id: str, delivery: Delivery) -> None:
        """Send `delivery` to a node and wait for it. Raises Busy, UnknownQueue or StoreAway."""
        outcome, done = _outcome()
        self.deliver(server_id, delivery, done)
        await outcome

    async def run(self) -> None:
        """Send for as long as the process lives. Runs as a side task; ends only by being cancelled."""
        while True:
            await self._gathered.wait()
            self._gathered.clear()
            commands = list(self._take())
            if commands:
                await self._send(commands)
            if not self._gathered.is_set() and not self._acknowledgements:
                self._idle.set()

    def take_counts(self) -> tuple[int, int]:
        """Pipelines sent since the last call, and how many of them failed."""
        counts = self._sends, self._failures
        self._sends = self._failures = 0
        return counts

    async def flushed(self) -> None:
        """Wait until everything handed in so far has been sent or refused."""
        self._acknowledge_now()
        await self._idle.wait()

    def _acknowledge_now(self) -> None:
        if self._acknowledgements:
            self._are_due = True
            self._wake()

    def _wake(self) -> None:
        if not self._gathered.is_set():
            self._gathered.set()
            self._idle.clear()

    def _take(self) -> Iterator[_Command]:
        """The commands for what has gathered, each with what takes its answer."""
        messages, self._messages = self._messages, defaultdict(list)
        deliveries, self._deliveries = self._deliveries, defaultdict(list)
        for server_id, waiting in deliveries.items():
            for some in _bundles(waiting):
                entry = encode([delivery for delivery, _ in some])
                messages[keys.node_queue(server_id)].append((entry, tuple(done for _, done in some)))
        for queue_id, sent in messages.items():
            for start in range(0, len(sent), MAX_MESSAGES_PER_CALL):
                yield _publish(queue_id, sent[start : start + MAX_MESSAGES_PER_CALL])
        if not self._are_due:
            return
        self._are_due = False
        acknowledgements, self._acknowledgements = self._acknowledgements, defaultdict(list)
        for (queue_id, group), entry_ids in acknowledgements.items():
            for start in range(0, len(entry_ids), MAX_MESSAGES_PER_CALL):
                yield _acknowledge(queue_id, group, entry_ids[start : start + MAX_MESSAGES_PER_CALL])

    async def _send(self, commands: list[_Command]) -> None:
        self._sends += 1
        try:
            answers = await self._execute([command for command, _ in commands])
        except (RedisError, OSError) as error:
            self._failures += 1
            away = StoreAway(f"Redis does not answer: {error}")
            for _, take in commands:
                take(away)
            return
        for (_, take), answer in zip(commands, answers, strict=True):
            take(answer)

    async def _execute(self, commands: list[Command]) -> list[Any]:
        answers = await self._redis.execute_commands(commands)
        for _ in range(MOST_LOADS):
            lost = [index for index, answer in enumerate(answers) if is_missing(answer)]
            if not lost:
                break
            await LIBRARY.load(self._redis)
            again = await self._redis.execute_commands([commands[index] for index in lost])
            for index, answer in zip(lost, again, strict=True):
                answers[index] = answer
        return answers


def _bundles(waiting: list[_Waiting]) -> Iterator[list[_Waiting]]:
    """Cut what waits for a node into entries, by count and by size."""
    bundle: list[_Waiting] = []
    size_bytes = 0
    for item in waiting:
        size_bytes += len(item[0].frame)
        if bundle and (len(bundle) == MAX_DELIVERIES_PER_ENTRY or size_bytes > MAX_ENTRY_BYTES):
            yield bundle
            bundle, size_bytes = [], len(item[0].frame)
        bundle.append(item)
    yield bundle


def _outcome() -> tuple[asyncio.Future[None], Done]:
    """Something to await, and the callback that settles it."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None) -> None:
        if outcome.done():  # whoever awaited it was cancelled
            return
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)

    return outcome, done


def _publish(queue_id: str, sent: list[_Sent]) -> _Command:
    names = [queue_id, keys.queue_meta(queue_id), keys.queue_stats(queue_id)]
    command = LIBRARY.command("queue_publish", names, [message for message, _ in sent])

    def take(answer: Any) -> None:
        taken = answer if isinstance(answer, int) else 0
        for index, (_, callbacks) in enumerate(sent):
            error = None if index < taken else _refusal(queue_id, answer)
            for done in callbacks:
                if done is not None:
                    done(error)
        if taken < len(sent):
            log.warning("not appended", queue=queue_id, count=len(sent) - max(taken, 0), cause=str(error))

    return command, take


def _refusal(queue_id: str, answer: Any) -> Exception:
    if isinstance(answer, StoreAway):
        return answer
    if isinstance(answer, Exception):
        return StoreAway(f"Redis refuses to append to {queue_id}: {answer}")
    return refusal(queue_id, answer)


def _acknowledge(queue_id: str, group: str, entry_ids: list[bytes]) -> _Command:
    names = [queue_id, keys.queue_stats(queue_id)]
    command = LIBRARY.command("queue_acknowledge", names, [group, *entry_ids])

    def take(answer: Any) -> None:
        if isinstance(answer, Exception):
            log.warning("not acknowledged", queue=queue_id, count=len(entry_ids), cause=str(answer))

    return command, take
