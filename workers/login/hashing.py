"""Password hashing in threads of its own, behind a bounded queue.

bcrypt takes a quarter of a second of a core and gives up the interpreter's lock meanwhile: threads
keep the loop free, a bound keeps a rush from waiting for longer than anybody listens.
"""

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from protocol.errors import BUSY, RequestError
from runtime.settings import AuthSettings

T = TypeVar("T")

NICENESS = 10
"""Hashing threads yield to the loops of this machine: a login can wait 50 ms longer, a ping cannot."""

SMOOTHING = 0.1


class Hashing:
    """Hashes and checks passwords of at most 72 bytes, which is what bcrypt takes.

    `most_per_address` of one address are in hand at once, so that nobody has all of the lane.
    """

    def __init__(self, settings: AuthSettings, most_per_address: int) -> None:
        self._cost = settings.bcrypt_cost
        self._backlog = settings.hash_backlog
        self._threads = settings.hash_threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, "bcrypt", initializer=_yield_to_others)
        self._waiting = 0
        self._by_address: Counter[str] = Counter()
        self._most_per_address = most_per_address
        self._mean_s = 0.01
        self._nobody = bcrypt.hashpw(os.urandom(16), bcrypt.gensalt(self._cost))

    def refuse_when_full(self, address: str) -> None:
        """Raise RequestError BUSY when a password that comes from there would not be taken now.

        To be asked before anything else is done for a request that needs it.
        """
        if self._waiting >= self._backlog + self._threads:
            raise self._busy("Too many passwords wait to be checked.", self._waiting)
        mine = self._by_address[address]
        if mine >= self._most_per_address:
            raise self._busy("Too many passwords from your address wait to be checked.", mine)

    async def hash(self, password: str, deadline_ms: int, address: str) -> str:
        """A salted hash. Raises RequestError BUSY when too many wait, or when the deadline passes first."""
        made = await self._run(
            lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)), deadline_ms, address
        )
        return made.decode()

    async def check(self, password: str, password_hash: str | None, deadline_ms: int, address: str) -> bool:
        """Whether the password is the hashed one; False, after the same time, where there is no hash.

        Raises RequestError BUSY when too many wait, or when the deadline passes first.
        """
        against = self._nobody if password_hash is None else password_hash.encode()
        same = await self._run(lambda: bcrypt.checkpw(password.encode(), against), deadline_ms, address)
        return same and password_hash is not None

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T], deadline_ms: int, address: str) -> T:
        self.refuse_when_full(address)
        self._waiting += 1
        self._by_address[address] += 1
        try:
            done = await asyncio.get_running_loop().run_in_executor(
                self._pool, _in_time, work, deadline_ms / 1000
            )
        finally:
            self._waiting -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        if done is None:
            raise self._busy("Your password waited too long to be checked.", self._waiting)
        result, seconds = done
        self._mean_s += SMOOTHING * (seconds - self._mean_s)
        return result

    def _busy(self, message: str, waiting: int) -> RequestError:
        queue_s = self._mean_s * (waiting + 1) / self._threads
        return RequestError(BUSY, message, int(queue_s * 1000) + 100)


def _in_time(work: Callable[[], T], deadline_s: float) -> tuple[T, float] | None:
    """Do the work and tell its seconds; None when nobody waits for it any more."""
    if time.time() > deadline_s:
        return None
    start_s = time.perf_counter()
    return work(), time.perf_counter() - start_s


def _yield_to_others() -> None:
    if sys.platform == "linux":  # elsewhere a priority belongs to the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
