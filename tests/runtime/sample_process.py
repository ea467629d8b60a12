"""A daemon for the tests: `python sample_process.py NOTES FAULT`.

It notes in a file what its lifecycle and its steps are called for, and misbehaves as the fault says.
"""

import asyncio
import sys
import time
from pathlib import Path

from runtime import logging
from runtime.config import ConfigError
from runtime.daemon import Daemon, Dismissed, Refused, Step, main


class Sample:
    """Lifecycle and parts of the daemon in one, each call a line in the notes."""

    def __init__(self, notes: Path, fault: str) -> None:
        self.notes = notes
        self.fault = fault
        self.attempts = 0
        self.is_ready = asyncio.Event()

    def note(self, text: str) -> None:
        with self.notes.open("a") as file:
            file.write(text + "\n")

    # -- lifecycle

    async def starting(self) -> None:
        self.note("starting")

    async def ready(self) -> None:
        self.note("ready")
        self.is_ready.set()

    async def draining(self) -> None:
        self.note("draining")
        await self._announce_badly()

    async def stopped(self) -> None:
        self.note("stopped")
        await self._announce_badly()

    async def error(self, cause: str) -> None:
        self.note(f"error {cause}")
        if self.fault == "side task fails, error hangs":
            await asyncio.sleep(3600)

    async def heartbeat(self) -> None:
        self.note("heartbeat")
        if not self.is_ready.is_set():  # faults come in their turn on a busy machine, too
            return
        if self.fault == "name lost":
            raise Refused("another one is SAMPLE now")
        if self.fault == "dismissed":
            raise Dismissed
        await self._announce_badly()

    async def _announce_badly(self) -> None:
        if self.fault == "announcements fail":
            raise ConnectionError("the store is away")
        if self.fault == "announcements hang":
            await asyncio.sleep(3600)

    # -- parts

    async def claim(self) -> None:
        self.note("claim")
        if self.fault == "refused":
            raise Refused("SAMPLE is alive already")
        if self.fault == "claim fails":
            raise ConnectionError("the store is away")

    async def release(self) -> None:
        self.note("release")

    async def start_one(self) -> None:
        self.note("start one")

    async def stop_one(self) -> None:
        self.note("stop one")

    async def start_two(self) -> None:
        self.attempts += 1
        self.note(f"start two, attempt {self.attempts}")
        if self.fault == "step fails":
            raise OSError("redis://:hunter2@host is away")
        if self.fault == "step fails by an error of its own":
            raise LookupError("the store is away")
        if self.fault == "step fails twice" and self.attempts < 3:
            raise OSError("not yet")
        if self.fault == "step hangs":
            await asyncio.sleep(3600)
        if self.fault == "step cancels itself":
            raise asyncio.CancelledError

    async def stop_two(self) -> None:
        self.note("stop two")
        if self.fault == "stop fails":
            raise OSError("will not close")
        if self.fault == "stop cancels itself":
            raise asyncio.CancelledError
        if self.fault == "stop hangs":
            await asyncio.sleep(3600)

    async def start_three(self) -> None:
        self.note("start three")
        if self.fault.startswith("side task fails"):
            daemon.watch(self._fail_soon(), "reader")
        if self.fault == "blocked":
            daemon.watch(self._block_soon(), "blocker")

    async def _fail_soon(self) -> None:
        await self.is_ready.wait()
        await asyncio.sleep(0.05)
        raise KeyError("gone")

    async def _block_soon(self) -> None:
        await asyncio.sleep(0.05)
        self.note("blocked")
        time.sleep(3600)

    async def drain(self) -> None:
        self.note("drain")
        if self.fault.startswith("drain hangs"):
            if self.fault == "drain hangs, side task fails":
                daemon.watch(self._fail_soon(), "reader")
            await asyncio.sleep(3600)
        if self.fault == "drain fails":
            raise OSError("cannot finish")
        self.note("drained")


async def run() -> int:
    """Live as a daemon of three steps."""
    global daemon  # noqa: PLW0603
    sample = Sample(Path(sys.argv[1]), sys.argv[2])
    logging.configure("info", "json", "SAMPLE")
    if sample.fault == "bad settings":
        raise ConfigError("config.toml: login.admit_rate: expected an integer")
    steps = [
        Step("one", sample.start_one, sample.stop_one),
        Step("two", sample.start_two, sample.stop_two, attempts=3, backoff_s=0.01, timeout_s=0.3),
        Step("three", sample.start_three),
    ]
    daemon = Daemon(
        "SAMPLE",
        sample,
        steps,
        heartbeat_s=0.05,
        claim=Step("claim", sample.claim, sample.release, attempts=2, backoff_s=0.01),
        drain=sample.drain,
        drain_timeout_s=60 if sample.fault == "drain hangs for long" else 1.5,
    )
    return await daemon.run()


daemon: Daemon

if __name__ == "__main__":
    main(run)
