"""SIGTERM and SIGINT: the first one asks the process to end well, a second one ends it at once."""

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


class Signals:
    """While entered, the first signal calls `end`; the next one exits with 128 + its number (143, 130)."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in ENDING_SIGNALS:
            self._before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, self._first, number)

    def __exit__(self, *_: object) -> None:
        self._leave_loop()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _first(self, number: signal.Signals) -> None:
        log.info("asked to end; a second signal ends at once", signal=number.name)
        self._leave_loop()
        for each in ENDING_SIGNALS:
            signal.signal(each, _exit_at_once)
        self._end()

    def _leave_loop(self) -> None:
        for number in ENDING_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    # Not the signal's default: a container's first process has none.
    os._exit(128 + number)
