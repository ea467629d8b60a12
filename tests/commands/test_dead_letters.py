"""`lobbyctl dead-letters` on every queue of a whole system: seen, worked on again, dropped."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest

from protocol.messages import REQUESTS
from protocol.messages.portal import TaskType
from protocol.queues import Lane
from scripts.commands import dead_letters_work
from storage import keys
from storage.connections import connect, connect_wire
from storage.queues import Outbox, QueueServer
from storage.tasks import NewTask, Tasks
from tests.commands.running import CHEAP, PATIENCE_S, UP, Running

pytestmark = pytest.mark.servers

SPOILED = b"\xc1"
"""No message of any queue: no msgpack begins so."""

KINDS = [kind.value for kind in TaskType]


def declared() -> set[str]:
    """The queues of a system with one node, as its parts declare them."""
    workers = {each.owner for each in REQUESTS.values()} - {"socketd"}
    return {
        *(keys.lane_queue(worker, lane) for worker in workers for lane in Lane),
        *(keys.task_queue(kind) for kind in KINDS),
        *(keys.EVENT_BUS, keys.STATUS_QUEUE, keys.SUBMITTED_SCORES, keys.node_queue("SOCK001")),
    }


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A system that gives up on what failed twice, at once."""
    options = ("--set", "queues.lease_s=0.3", "--set", "queues.max_deliveries=1")
    running = Running(tmp_path_factory.mktemp("impatient"), "--no-demo", *CHEAP, *options)
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.clean_up()


class Operator:
    """Somebody who types `lobbyctl dead-letters`, without the time that each command takes to start."""

    def __init__(self, system: Running, capsys: pytest.CaptureFixture[str]) -> None:
        self._data = system.data
        self._capsys = capsys

    async def types(self, command: Callable[..., Awaitable[int]], *arguments: object) -> Any:
        """What a command that works says."""
        self._capsys.readouterr()
        assert await command(self._data, None, *arguments, as_json=True) == 0
        return json.loads(self._capsys.readouterr().out)

    async def counts(self) -> dict[str, int]:
        """How many dead letters each queue has that has any."""
        found: dict[str, int] = (await self.types(dead_letters_work.show_list, None, 10))["queues"]
        return found

    async def letters(self, queue_id: str) -> dict[str, str]:
        """The causes of a queue's dead letters, by their ids."""
        found = (await self.types(dead_letters_work.show_list, queue_id, 10))["letters"]
        return {letter["id"]: letter["cause"] for letter in found}


async def spoil(url: str, queue_ids: Iterable[str]) -> None:
    """Put something into each of the queues that nobody can work on."""
    redis, wire = connect(url), connect_wire(url)
    tasks, outbox = Tasks(redis, QueueServer(redis), keep_s=600), Outbox(wire)
    sending = asyncio.create_task(outbox.run())
    for queue_id in queue_ids:
        kind = queue_id.removeprefix(keys.TASK_QUEUE_PREFIX)
        if kind in KINDS:
            await tasks.submit(kind, NewTask(f"task_1_somebody_{kind}", "somebody", Lane.NORMAL, SPOILED))
        else:
            await outbox.published(queue_id, SPOILED)
    sending.cancel()
    await wire.aclose()
    await redis.aclose()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.1)


async def test_every_queues_dead_letters_are_seen_worked_on_again_and_dropped(
    impatient: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, url = Operator(impatient, capsys), impatient.endpoints["redis"]
    redis = connect(url)
    assert set(await QueueServer(redis).ids()) == declared()
    await redis.aclose()
    assert await operator.counts() == {}

    await spoil(url, sorted(declared()))

    async def has_each_queue_some() -> bool:
        return set(await operator.counts()) == declared()

    await until(has_each_queue_some, "each queue's has become a dead letter")
    first = {queue_id: await operator.letters(queue_id) for queue_id in declared()}
    for queue_id, letters in first.items():
        assert all(letters.values()), "each has a cause"
        for letter_id in letters:
            shown = await operator.types(dead_letters_work.show, queue_id, letter_id)
            assert (shown["id"], shown["queue"], shown["message"]) == (letter_id, queue_id, "\ufffd")

    for queue_id, letters in first.items():
        done = await operator.types(dead_letters_work.requeue, queue_id, list(letters))
        assert done == {"done": len(letters)}

    async def has_each_queue_others() -> bool:
        found = {queue_id: await operator.letters(queue_id) for queue_id in declared()}
        return all(found[queue_id] and not found[queue_id].keys() & first[queue_id] for queue_id in found)

    await until(has_each_queue_others, "each was worked on again, in vain")
    for queue_id in declared():
        assert (await operator.types(dead_letters_work.drop, queue_id, None))["done"] > 0

    async def are_all_dropped() -> bool:  # of the bus each reader gives up by itself
        for queue_id in (left := await operator.counts()):
            await operator.types(dead_letters_work.drop, queue_id, None)
        return not left

    await until(are_all_dropped, "none is left")
