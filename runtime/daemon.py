"""How a process lives: claim its name, start step by step, be ready, beat, drain, stop.

The order, from which every daemon of lobbyd is made:

    claim → announce starting → the steps → announce ready → (a signal) announce draining → drain
          → the steps' stops in reverse → announce stopped → release the claim

An answer to a heartbeat that dismisses the process counts as a signal.

A failure anywhere goes straight to the stops and announces an error in place of stopped. Heartbeats run from
"starting" until the last announcement.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, ParamSpec, Protocol

import structlog
import uvloop

from runtime import memory, notify
from runtime.config import ConfigError
from runtime.logging import redact_text
from runtime.metrics import LoopLag
from runtime.signals import Signals
from runtime.waiting import Overdue, cancel, until, within

EXIT_CLEAN = 0
EXIT_ERROR = 1
EXIT_CONFIG = 2
EXIT_REFUSED = 3

ANNOUNCE_TIMEOUT_S = 2.0
ANNOUNCE_ATTEMPTS = 5
BACKOFF_MAX_S = 5.0
DRAIN_SHARE = 0.9  # of the time from the signal to the exit; the stops need the rest
STOPS_TIMEOUT_S = 10.0  # for all stops together after a failure
CAUSE_MAX_LENGTH = 300  # characters; it goes into the status
STOP_TIMEOUT_MIN_S = 1.0  # what a stop gets even when others used the time up

P = ParamSpec("P")
log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


class Refused(Exception):
    """This process must not live, since another one rightly does; its text tells people which and what to do.

    Never retried. The claim raises it, or an announcement that finds the name taken; the process exits with 3
    and announces nothing more, for the status is the other one's.
    """


class Dismissed(Exception):
    """Whoever watches over the process wants it to end, as SIGTERM would have it. A heartbeat raises it."""


class Lifecycle(Protocol):
    """Announces how the process fares to whoever watches over it. Any method may raise."""

    async def starting(self) -> None: ...
    async def ready(self) -> None: ...
    async def draining(self) -> None: ...
    async def stopped(self) -> None: ...
    async def error(self, cause: str) -> None: ...
    async def heartbeat(self) -> None: ...


@dataclass(frozen=True)
class Step:
    """One part of a process, started after those before it and stopped before them.

    `start` leaves nothing behind when it raises or is cancelled. It is tried up to `attempts` times, each
    within `timeout_s`, with pauses that begin with `backoff_s` and double. `stop` is called once, and only
    after a start that went well.
    """

    name: str
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]] | None = None
    attempts: int = 1
    backoff_s: float = 0.2
    timeout_s: float = 30.0


class Daemon:
    """The life of one process. Make it, then `run` it once."""

    def __init__(
        self,
        process_id: str,
        lifecycle: Lifecycle,
        steps: Sequence[Step],
        *,
        heartbeat_s: float,
        claim: Step | None = None,
        drain: Callable[[], Awaitable[None]] | None = None,
        drain_timeout_s: float = 45.0,
        loop_lag: LoopLag | None = None,
    ) -> None:
        """Say what the process is made of.

        `claim` makes sure that no other process bears this name, raising Refused; its stop frees the name.
        `drain` finishes accepted work; it is cancelled when it takes too long, so what must not be cancelled
        runs in a task of its own. `drain_timeout_s` is the time from the signal to the exit. `loop_lag` is
        given by who wants to read it; the daemon runs it.
        """
        self.process_id = process_id
        self._lifecycle = lifecycle
        self._claim = claim
        self._steps = steps
        self._heartbeat_s = heartbeat_s
        self._drain_work = drain
        self._drain_timeout_s = drain_timeout_s
        self._loop_lag = loop_lag or LoopLag()
        self._started: list[Step] = []
        self._holds_name = False
        self._ready = False
        self._ending = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None
        self._cause = ""
        self._unclean = False
        self._deadline = float("inf")
        self._side_tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Live until a signal or a failure.

        Returns the exit code: 0 after a clean end, 1 after an error or an unclean end, 3 when refused.
        """
        with Signals(self._end):
            self.watch(self._loop_lag.run(), "loop lag")
            interval_s = notify.watchdog_interval_s(os.environ)
            if interval_s is not None:
                self.watch(self._feed_watchdog(interval_s), "watchdog")
            try:
                await until(self._ending, self._start())
                await self._ending.wait()
                await self._drain()
            finally:
                await self._finish()
        return self._exit_code()

    def watch(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a side task. Should it raise, the process ends in error; left at the end, it is cancelled."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_task_done)
        return task

    # -- what ends it

    def _end(self) -> None:
        self._end_within(self._drain_timeout_s)

    def _fail(self, name: str, error: BaseException, *, is_outside: bool = False) -> None:
        cause = redact_text(f"{name}: {_described(error)}")[:CAUSE_MAX_LENGTH]
        words_say_it_all = is_outside or isinstance(error, (OSError, Refused))
        log.error(
            "refused" if isinstance(error, Refused) else "ends in error",
            cause=cause,
            exc_info=None if words_say_it_all else error,
        )
        if words_say_it_all:
            log.debug("traceback of the error", exc_info=error)
        if self._failure is None:
            self._failure, self._cause = error, cause
        self._failed.set()
        self._end_within(STOPS_TIMEOUT_S)

    def _end_within(self, seconds: float) -> None:
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + seconds)
        self._ending.set()

    def _side_task_done(self, task: asyncio.Task[None]) -> None:
        self._side_tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(task.get_name(), error)

    # -- start

    async def _start(self) -> None:
        if self._claim is not None and not await self._start_step(self._claim):
            return
        self._holds_name = True
        starting = _announcement("announce starting", self._announce_starting)
        ready = _announcement("announce ready", self._announce_ready)
        for step in (starting, *self._steps, ready):
            if not await self._start_step(step):
                return

    async def _start_step(self, step: Step) -> bool:
        try:
            await _attempt(step)
        except Exception as error:
            # Trying again can help against what is outside this process alone: a store, a port.
            self._fail(step.name, error, is_outside=step.attempts > 1)
            return False
        self._started.append(step)
        return True

    async def _announce_starting(self) -> None:
        await self._lifecycle.starting()
        self.watch(self._beat(), "heartbeat")
        log.info("starting")

    async def _announce_ready(self) -> None:
        await self._lifecycle.ready()
        self._ready = True
        memory.keep_freed()
        memory.settle()
        notify.ready()
        notify.status(f"{self.process_id} is ready")
        log.info("ready")

    # -- end

    async def _drain(self) -> None:
        if self._failed.is_set() or not self._ready:
            return
        notify.stopping()
        notify.status(f"{self.process_id} drains")
        log.info("draining")
        await self._announce("draining", self._lifecycle.draining)
        if self._drain_work is None:
            return
        left_s = self._left_s() - (1 - DRAIN_SHARE) * self._drain_timeout_s
        try:
            await until(self._failed, within(max(left_s, STOP_TIMEOUT_MIN_S), self._drain_work()))
        except Overdue as error:
            log.error("drain unfinished", cause=str(error))
            self._unclean = True
        except Exception as error:
            self._fail("drain", error)

    async def _finish(self) -> None:
        notify.stopping()
        for step in reversed(self._started):
            if step is not self._claim:
                await self._stop_step(step)
        await cancel(self._side_tasks.copy())
        if self._holds_name and not isinstance(self._failure, Refused):
            await self._announce_end()
        if self._claim in self._started:
            await self._stop_step(self._claim)
        log.info("ended", exit_code=self._exit_code())

    async def _stop_step(self, step: Step) -> None:
        if step.stop is None:
            return
        try:
            await within(max(self._left_s(), STOP_TIMEOUT_MIN_S), step.stop())
        except Exception as error:
            log.error("did not stop well", step=step.name, cause=_described(error), exc_info=error)
            self._unclean = True

    async def _announce_end(self) -> None:
        if self._failure is None:
            await self._announce("stopped", self._lifecycle.stopped)
        else:
            notify.status(self._cause)
            await self._announce("error", lambda: self._lifecycle.error(self._cause))

    def _left_s(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    def _exit_code(self) -> int:
        if isinstance(self._failure, Refused):
            return EXIT_REFUSED
        return EXIT_ERROR if self._failure is not None or self._unclean else EXIT_CLEAN

    # -- signs of life

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self._announce("heartbeat", self._lifecycle.heartbeat)

    async def _announce(self, name: str, announcement: Callable[[], Awaitable[None]]) -> None:
        """Announce as well as can be; never raises."""
        try:
            await within(ANNOUNCE_TIMEOUT_S, announcement())
        except Refused as error:
            self._fail(name, error)
        except Dismissed:
            if not self._ending.is_set():
                log.info("asked to end")
            self._end()
        except Exception as error:
            log.warning("not announced", announcement=name, cause=_described(error))

    async def _feed_watchdog(self, interval_s: float) -> None:
        while True:
            if self._loop_lag.max_ms < interval_s * 1_000:
                notify.watchdog()
            await asyncio.sleep(interval_s)


def _announcement(name: str, announce: Callable[[], Awaitable[None]]) -> Step:
    return Step(name, announce, attempts=ANNOUNCE_ATTEMPTS, timeout_s=ANNOUNCE_TIMEOUT_S)


async def _attempt(step: Step) -> None:
    pause_s = step.backoff_s
    for left in reversed(range(step.attempts)):
        try:
            return await within(step.timeout_s, step.start())
        except Exception as error:
            if left == 0 or isinstance(error, Refused):
                raise
            log.warning(
                "trying again", step=step.name, cause=_described(error), attempts_left=left, pause_s=pause_s
            )
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, BACKOFF_MAX_S)


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (Refused, Overdue)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def main(run: Callable[P, Coroutine[Any, Any, int]], *args: P.args, **kwargs: P.kwargs) -> NoReturn:
    """Run a program on uvloop and exit with the code that it returns; 2, with one line, on a ConfigError."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(run(*args, **kwargs))
    except ConfigError as error:
        print(error, file=sys.stderr)
        code = EXIT_CONFIG
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)
