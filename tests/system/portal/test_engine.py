"""What becomes of tasks in their workers: turns, time limits, cancelling, progress, and workers that end."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.portal import CancelTask
from storage import keys
from tests.system.cluster import Cluster, Process, eventually
from tests.system.conftest import run_house
from tests.system.portal.asking import Office, Player, ended, signed_in, statuses, told_of, view
from tests.system.portal.chores import CHORE, HARMLESS, OVERLONG, Chore, begun, done, undone

pytestmark = pytest.mark.servers

LONG_S = 3600.0
PROGRESS_PER_S = 5


@pytest.fixture(scope="module")
def portal(servers_folder: Path) -> Iterator[Cluster]:
    """A node and a login worker; the tests start the portal workers."""
    settings = {"queues.lease_s": 2, "portal.max_open_tasks": 2000}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        yield cluster.start()


@pytest.fixture
def worker(portal: Cluster) -> Iterator[Process]:
    """A portal worker that does chores."""
    process = start_worker(portal, 1)
    yield process
    assert process.end() == 0


def start_worker(portal: Cluster, number: int, *, wait: bool = True) -> Process:
    return portal.start_worker("portal", number, program=chores_program(), wait=wait)


def chores_program() -> str:
    return str(Path(__file__).with_name("chores.py"))


async def test_a_draining_worker_hands_back_what_it_cannot_finish(
    portal: Cluster, office: Office, player: Player, tmp_path: Path
) -> None:
    first = await asyncio.to_thread(start_worker, portal, 1)
    gate = tmp_path / "gate"
    ids = await office.assign(CHORE, player.name, Chore(str(tmp_path), gate=str(gate)), 6)
    await eventually(lambda: sum(begun(tmp_path, each) for each in ids) == 4, "as many as it takes are begun")
    interrupted = [each for each in ids if begun(tmp_path, each)]

    assert await asyncio.to_thread(first.end) == 0

    assert [state.status.value for state in await office.states(ids)] == ["pending"] * 6
    pending: Any = portal.redis.xpending(keys.task_queue(CHORE), "lobbyd")
    assert pending["pending"] == 0
    gate.touch()
    second = await asyncio.to_thread(start_worker, portal, 2)
    for task_id in ids:
        assert (await ended(player, task_id)).status == "completed"
    for task_id in interrupted:
        assert statuses(told_of(player, task_id)) == ["processing", "pending", "processing", "completed"]
        assert begun(tmp_path, task_id) == 2
        assert done(tmp_path, task_id)
        assert not undone(tmp_path, task_id)
    assert second.end() == 0


async def test_what_takes_too_long_is_ended_tried_again_and_given_up(
    portal: Cluster, office: Office, player: Player, worker: Process, tmp_path: Path
) -> None:
    (task_id,) = await office.assign(OVERLONG, player.name, Chore(str(tmp_path)))

    update = await ended(player, task_id)

    assert (update.status, update.error) == ("failed", "it took longer than 0.3 s")
    again = ["processing", "pending"]
    assert statuses(told_of(player, task_id)) == [*again, *again, "processing", "failed"]
    assert begun(tmp_path, task_id) == 3
    await eventually(lambda: undone(tmp_path, task_id), "what it left is removed")
    queue = keys.task_queue(OVERLONG)
    letters: Any = await office.redis.xrange(keys.dead_letters(queue))
    ((_, letter),) = letters
    assert (letter[b"t"], letter[b"cause"]) == (task_id.encode(), b"it took longer than 0.3 s")
    assert portal.redis.xlen(queue) == 0


async def test_progress_is_told_at_most_five_times_a_second(
    office: Office, player: Player, worker: Process, tmp_path: Path
) -> None:
    (task_id,) = await office.assign(CHORE, player.name, Chore(str(tmp_path), duration_s=2))

    update = await ended(player, task_id)

    percents = [each.progress for each in told_of(player, task_id)[1:-1]]
    assert 2 <= len(percents) <= PROGRESS_PER_S * update.result + 1
    assert percents == sorted(set(percents))
    assert 0 < percents[0] <= percents[-1] < 100


async def test_a_task_under_way_can_be_given_up(
    office: Office, player: Player, worker: Process, tmp_path: Path
) -> None:
    ids = await office.assign(CHORE, player.name, Chore(str(tmp_path), duration_s=LONG_S), 4)
    await eventually(lambda: all(begun(tmp_path, each) for each in ids), "all are begun")

    for task_id in ids:
        await player.ask(CancelTask(task_id=task_id))

    for task_id in ids:
        assert (await ended(player, task_id)).status == "cancelled"
        await player.refused(CancelTask(task_id=task_id), "ALREADY_FINISHED")
        assert (await view(player, task_id)).status == "cancelled"
    await eventually(lambda: all(undone(tmp_path, each) for each in ids), "what they left is removed")
    (next_one,) = await office.assign(CHORE, player.name, Chore(str(tmp_path)))
    assert (await ended(player, next_one)).status == "completed", "their worker is free again"
    assert not any(done(tmp_path, each) for each in ids)
    for task_id in ids:
        assert statuses(told_of(player, task_id)) == ["processing", "cancelled"]


async def test_a_users_thousand_tasks_keep_nobody_waiting(
    portal: Cluster, office: Office, player: Player
) -> None:
    other = await signed_in(portal)
    many = await office.assign(HARMLESS, player.name, Chore(), 1000)
    (single,) = await office.assign(HARMLESS, other.name, Chore())

    worker = await asyncio.to_thread(start_worker, portal, 1)

    assert (await ended(other, single)).status == "completed"
    await eventually(lambda: portal.redis.xlen(keys.task_queue(HARMLESS)) == 0, "all are done")
    ends = {state.task_id: state.finished_at or 0 for state in await office.states([*many, single])}
    assert len(ends) == 1001
    earlier = [each for each in many if ends[each] < ends[single]]
    assert len(earlier) <= 20, "those that were begun with it"
    other.leave()
    assert worker.end() == 0
