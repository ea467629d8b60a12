"""Async tests run on uvloop, and one that hangs fails instead of holding up the rest."""

import asyncio
import os
import signal
import threading
from types import FrameType

import pytest
import uvloop

from tests.loop import TimedLoop


async def test_async_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


def test_a_timeout_ends_a_loop_that_waits() -> None:
    def expire(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail("the time is up")

    async def wait_for_ever() -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await asyncio.Event().wait()

    before = signal.signal(signal.SIGUSR1, expire)
    try:
        with (
            asyncio.Runner(loop_factory=TimedLoop) as runner,
            pytest.raises(pytest.fail.Exception, match="the time is up"),
        ):
            runner.run(wait_for_ever())
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_other_stray_exceptions_are_reported_as_ever() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    stray = ValueError("stray")
    loop.call_exception_handler({"message": "of a callback", "exception": stray})
    assert reported == [stray]
