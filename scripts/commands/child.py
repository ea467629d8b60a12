"""One child process: started, watched until it is ready, started again when it dies, ended when asked."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from runtime.daemon import EXIT_CLEAN, EXIT_CONFIG, EXIT_ERROR, EXIT_REFUSED
from runtime.waiting import cancel
from scripts.commands.last_words import last_words

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
HEALTHY_S = 10.0
"""Ready for so long, a process has recovered: its next death counts as a first one."""

START_ATTEMPTS = 2
"""Lives in which a process must become ready once. Its own steps try again much more often."""

LOOK_AGAIN_S = 0.1
LARGEST_LOG_BYTES = 8 * 1024 * 1024

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Life:
    """One run of a program: its pid, and when it was started, in ms since the epoch."""

    pid: int
    started_ms: int


@dataclass(frozen=True)
class Program:
    """What to run, and how to see that it is ready.

    `is_ready` is asked again and again while a life is young, and must not raise. `end_s` is how long its
    end may take before it is killed. One that `may_leave` is not started again when it was ready and ended
    well: somebody else has asked it to.
    """

    process_id: str
    command: Sequence[str]
    log: Path
    is_ready: Callable[[Life], Awaitable[bool]]
    end_s: float
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: Path | None = None
    may_leave: bool = False


class Failed(Exception):
    """A process never became ready. `code` is the exit code that this calls for."""

    def __init__(self, process_id: str, end: str, words: Sequence[str], code: int) -> None:
        super().__init__(f"{process_id} {end}")
        self.words = words
        self.code = code


class Observer(Protocol):
    """Is told what becomes of the children."""

    def started(self, child: "Child") -> None: ...
    def ready(self, child: "Child", again: bool) -> None: ...
    def died(self, child: "Child", end: str, words: Sequence[str], pause_s: float) -> None: ...
    def stopped(self, child: "Child", end: str | None) -> None: ...
    def left(self, child: "Child") -> None: ...


class Child:
    """A program that is kept alive by `run`, until `stop`."""

    def __init__(self, program: Program, observer: Observer, lock: int) -> None:
        """`lock` is a file descriptor for the process to inherit."""
        self.program = program
        self.life: Life | None = None
        self.was_ready = asyncio.Event()
        self.ended_well = True
        self._observer = observer
        self._lock = lock
        self._stopping = asyncio.Event()
        self._ready_since_s: float | None = None
        self._log_start = 0

    @property
    def process_id(self) -> str:
        """The process's name, e.g. SOCK001."""
        return self.program.process_id

    def stop(self) -> None:
        """Have `run` end the process and return."""
        self._stopping.set()

    def kill(self) -> None:
        """End the process now, whatever it does."""
        if self.life is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self.life.pid, signal.SIGKILL)

    async def run(self) -> None:
        """Keep the program alive until `stop` or until it leaves. Raises Failed when it is never ready."""
        pause_s, failures = FIRST_PAUSE_S, 0
        while True:
            try:
                code = await self._live()
                end = _described(code)
            except OSError as error:
                code, end = EXIT_ERROR, f"cannot be started: {error}"
            if self._stopping.is_set():
                return
            if self.program.may_leave and code == EXIT_CLEAN and self._ready_since_s is not None:
                self._observer.left(self)
                return
            words = last_words(self.program.log, self._log_start)
            if self._healthy_s() >= HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            if not self.was_ready.is_set():
                failures += 1
                self._give_up(code, failures, end, words)
            self._observer.died(self, end, words, pause_s)
            if await self._stops_within(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _give_up(self, code: int, failures: int, end: str, words: Sequence[str]) -> None:
        if code in {EXIT_CONFIG, EXIT_REFUSED}:
            raise Failed(self.process_id, end, words, code)
        if failures >= START_ATTEMPTS:
            raise Failed(
                self.process_id, f"never became ready: it {end}, {failures} times", words, EXIT_ERROR
            )

    async def _live(self) -> int:
        """Run the program once; its exit code."""
        self._ready_since_s = None
        process = await self._start()
        self.life = Life(process.pid, int(time.time() * 1000))
        ended = asyncio.create_task(process.wait())
        getting_ready = asyncio.create_task(self._become_ready(self.life))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            self._observer.started(self)
            await asyncio.wait({ended, stopping, getting_ready}, return_when=asyncio.FIRST_COMPLETED)
            if getting_ready.done():
                getting_ready.result()
                await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end(process, ended)
            return await ended
        finally:
            stopping.cancel()
            await cancel({getting_ready})
            if process.returncode is None:
                process.kill()
            self.life = None

    async def _start(self) -> asyncio.subprocess.Process:
        program = self.program
        if program.log.exists() and program.log.stat().st_size > LARGEST_LOG_BYTES:
            program.log.replace(f"{program.log}.1")
        with program.log.open("ab") as log:
            self._log_start = log.tell()
            return await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=program.environment,
                cwd=program.folder,
                pass_fds=(self._lock,),
                # Ctrl-C in the terminal is for us alone, who end the children in order.
                start_new_session=True,
                preexec_fn=_end_with_parent(os.getpid()),
            )

    async def _become_ready(self, life: Life) -> None:
        while not await self.program.is_ready(life):  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(LOOK_AGAIN_S)
        self._ready_since_s = asyncio.get_running_loop().time()
        again = self.was_ready.is_set()
        self._observer.ready(self, again)
        self.was_ready.set()

    async def _end(self, process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> None:
        process.terminate()
        await asyncio.wait({ended}, timeout=self.program.end_s)
        late = not ended.done()
        if late:
            process.kill()
        code = await ended
        # One that was not ready may not have come to listening to signals.
        self.ended_well = code == EXIT_CLEAN or (code == -signal.SIGTERM and self._ready_since_s is None)
        end = f"did not end within {self.program.end_s:g} s and was killed" if late else _described(code)
        self._observer.stopped(self, None if self.ended_well else end)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _healthy_s(self) -> float:
        if self._ready_since_s is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._ready_since_s


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """What a child calls before its program begins, so that it does not outlive a parent that is killed."""
    if _libc is None:
        return None
    prctl = _libc.prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(EXIT_REFUSED)

    return prepare


def _described(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
