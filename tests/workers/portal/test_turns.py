"""Chunks that come before their turn: each waits for the one before it, and not for ever."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol.queues import Lane
from storage.connections import connect
from storage.queues import QueueServer
from storage.tasks import NewTask, Tasks, TaskState
from workers.portal import turns
from workers.portal.turns import AHEAD_BYTES, MOST_WAITING, Turns

KIND = "chore"
SIZE = 3 * AHEAD_BYTES
PATIENT_S = 30.0


@pytest.fixture
async def tasks(redis_url: str) -> AsyncIterator[Tasks]:
    redis = connect(redis_url)
    yield Tasks(redis, QueueServer(redis), keep_s=100)
    await redis.aclose()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", PATIENT_S)


async def begun(tasks: Tasks) -> TaskState:
    """An upload of which nothing has come."""
    task = NewTask("task_1_one", "one", Lane.NORMAL, b"\x80", held_bytes=SIZE)
    await tasks.submit_many(KIND, [task])
    state = await tasks.get(task.task_id)
    assert state is not None
    return state


async def test_a_chunk_waits_for_the_one_before_it(tasks: Tasks, patience: None) -> None:
    here, elsewhere = Turns(tasks), Turns(tasks)
    state = await begun(tasks)
    waiting = [asyncio.create_task(each.come(state, 10)) for each in (here, elsewhere)]
    await asyncio.sleep(0)

    await tasks.advance(state, 0, 10)
    here.reached(state.task_id, 10)  # the other one has to look

    assert [(await each).upload_offset for each in waiting] == [10, 10]


async def test_a_chunk_whose_turn_does_not_come_is_told_so(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.05)
    state = await begun(tasks)

    assert (await Turns(tasks).come(state, 1)).upload_offset == 0


async def test_nobody_waits_too_far_ahead(tasks: Tasks, patience: None) -> None:
    state = await begun(tasks)

    async with asyncio.timeout(PATIENT_S / 2):
        assert await Turns(tasks).come(state, AHEAD_BYTES + 1) is state


async def test_so_many_wait_and_no_more(tasks: Tasks, patience: None) -> None:
    waits, state = Turns(tasks), await begun(tasks)
    waiting = [asyncio.create_task(waits.come(state, 1)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)

    async with asyncio.timeout(PATIENT_S / 2):
        assert await waits.come(state, 1) is state

    waits.reached(state.task_id, 1)
    assert {each.upload_offset for each in await asyncio.gather(*waiting)} == {1}
