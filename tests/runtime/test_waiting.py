"""Cancelling tasks for good."""

import asyncio
import contextlib

from runtime.waiting import cancel


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def careless() -> None:
        nonlocal lost
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        lost += 1
        await asyncio.sleep(3600)

    task = asyncio.create_task(careless())
    await asyncio.sleep(0)

    await cancel({task})

    assert lost == 1
    assert task.cancelled()


async def test_a_task_that_cannot_be_cancelled_is_not_waited_for() -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await cancel({task})

    assert not task.done()
    released.set()
    await task


async def test_nothing_to_cancel() -> None:
    await cancel(set())
