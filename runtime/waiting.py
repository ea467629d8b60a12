"""Waiting that has an end: by a time limit, or by an event that makes the work pointless."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

CANCELLATION_TIMEOUT_S = 1.0
CANCEL_AGAIN_S = 0.1


class Overdue(TimeoutError):
    """Something took longer than it may."""


async def within(seconds: float, work: Awaitable[None]) -> None:
    """Await the work, and cancel it after so many seconds.

    Raises Overdue then, and RuntimeError should the work be cancelled by anybody but the caller: a stray
    cancellation must look like the mistake that it is, not like ours.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            await work
    except TimeoutError:
        if limit.expired():
            raise Overdue(f"took longer than {seconds:.3g} s") from None
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("ended in a cancellation that nobody asked for") from None


async def until(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run the work to its end, or cancel it when the event comes first."""
    task = asyncio.create_task(work)
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        await cancel({task})
    if task.done() and not task.cancelled():
        task.result()


async def cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel the tasks and wait for their end, but not for long.

    A task is cancelled more than once where need be: until Python 3.12 `asyncio.wait_for`, in which redis-py
    sends, can swallow a cancellation that comes as its work is done (bpo-37658).
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + CANCELLATION_TIMEOUT_S
    while tasks and loop.time() < end_s:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)
