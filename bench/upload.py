"""A large file through one connection: MB/s, beside a bare copy from a socket into a file.

Ours: `portal.submit` and then chunk by chunk, two under way at a time, until the file is whole, hashed and
stored; one node, one portal worker, the embedded Valkey. The limit is one process that copies as many bytes
from a socket into a file, and nothing else.
"""

import asyncio
import hashlib
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

import psutil

from bench import harness
from bench.harness import CannotMeasure, Result, at_most, rounded
from bench.system import HOST, Settings, System, running_system
from client import Player
from protocol.messages.portal import Submit, Submitted, TaskType, TaskUpdate

CHUNK_BYTES = 1_000_000
MB = 1_000_000
PASSWORD = "correct horse battery"
TIME_LIMIT_S = 240.0
LOOK_S = 0.1
MOST_RESIDENT_MB = 150


class Memory:
    """The most that processes had resident, by looking now and then."""

    def __init__(self, system: System) -> None:
        pids = system.processes.pids
        self._processes = {name: psutil.Process(pids[name]) for name in ("SOCK001", "portal-1")}
        self.most_mb = dict.fromkeys(self._processes, 0.0)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            for name, process in self._processes.items():
                self.most_mb[name] = max(self.most_mb[name], process.memory_info().rss / MB)
            await asyncio.sleep(LOOK_S)


async def measure(size_mib: int) -> Result:
    """Upload a file of so many MiB. Raises CannotMeasure when it does not come to its end."""
    machine, size = harness.machine(), size_mib * 2**20
    with tempfile.TemporaryDirectory(prefix="lobbyd-bench-") as folder:
        settings: Settings = {
            "portal.storage_url": folder,
            "portal.quota_bytes": 2 * size,
            "login.admit_rate": 60_000,
            "auth.bcrypt_cost": 4,
        }
        async with running_system(settings, workers={"portal": 1}) as system:
            memory = Memory(system)
            watching = asyncio.create_task(memory.watch())
            with tempfile.TemporaryFile(dir=folder) as file:
                file.truncate(size)
                sent_s, whole_s = await _upload(system, size, file)
            watching.cancel()
        copied_s = await asyncio.to_thread(_copy, size, Path(folder, "copy"))
    figures = {
        "sent_mb_per_s": rounded(size / MB / sent_s),
        "sent_and_stored_mb_per_s": rounded(size / MB / whole_s),
        "bare_copy_mb_per_s": rounded(size / MB / copied_s),
        "sent_beside_bare_copy_ratio": rounded(copied_s / sent_s),
        **{f"{name}_resident_mb": rounded(most) for name, most in memory.most_mb.items()},
    }
    goals = [
        at_most(f"MB resident in {name}", most, MOST_RESIDENT_MB) for name, most in memory.most_mb.items()
    ]
    return Result("upload", figures, goals, machine)


async def _upload(system: System, size: int, file: BinaryIO) -> tuple[float, float]:
    """Send a file. Answers the seconds until all of it was taken, and until it was stored."""
    ended: asyncio.Future[TaskUpdate] = asyncio.get_running_loop().create_future()

    def hear(_: str, event: object) -> None:
        if isinstance(event, TaskUpdate) and event.status in {"completed", "failed"} and not ended.done():
            ended.set_result(event)

    digest = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    async with Player([(HOST, system.ports[0])], on_event=hear) as player:
        await player.register("uploader", PASSWORD, "uploader@example.com", "uploader")
        await player.sign_in("uploader", PASSWORD)
        start_s = time.perf_counter()
        asked = Submit(
            task_type=TaskType.FILE_UPLOAD, file_name="large", size=size, sha256=digest.hexdigest()
        )
        accepted = cast(Submitted, await player.request(asked))
        await player.send_file(accepted.task_id, file)
        sent_s = time.perf_counter() - start_s
        update = await ended
        if update.status != "completed":
            raise CannotMeasure(f"The upload failed: {update.error}.")
        return sent_s, time.perf_counter() - start_s


def _copy(size: int, path: Path) -> float:
    """Copy as many bytes from a socket into a file. Answers the seconds."""
    here, there = socket.socketpair()
    chunk, buffer = bytes(CHUNK_BYTES), bytearray(CHUNK_BYTES)
    child = os.fork()
    if child == 0:
        here.close()
        for offset in range(0, size, CHUNK_BYTES):
            there.sendall(chunk[: min(CHUNK_BYTES, size - offset)])
        os._exit(0)
    there.close()
    start_s = time.perf_counter()
    with path.open("wb") as file:
        while received := here.recv_into(buffer):
            file.write(memoryview(buffer)[:received])
    took_s = time.perf_counter() - start_s
    here.close()
    os.waitpid(child, 0)
    return took_s


if __name__ == "__main__":
    parser = harness.arguments("upload", "A large file through one connection, beside a bare copy.")
    parser.add_argument("--mib", type=int, default=1024, help="size of the file in MiB (default: 1024)")
    given = parser.parse_args()
    harness.main(lambda: measure(given.mib), as_json=given.json, time_limit_s=TIME_LIMIT_S)
