"""Our task engine as a contestant of `bench.tasks`: `worker URL` or `drive URL COUNT LATENCIES`.

A worker with one kind of task that does nothing. Tasks are told to where their users are, as in a portal
worker; nothing is written to a database, since the others have none.
"""

import asyncio
import json
import sys
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec
import uvloop

from protocol.queues import Lane
from storage.connections import connect, connect_blocking, connect_wire
from storage.queues import Outbox, QueueServer
from storage.tasks import NewTask, Tasks, TaskStatus, TaskWork
from storage.whereabouts import Whereabouts
from storage.wire import Wire
from workers.portal.engine import Engine
from workers.portal.kinds import Context, Kinds, Limits
from workers.portal.line import BLOCK_S, Change
from workers.portal.room import tell
from workers.telling import Telling

KIND = "noop"
CONCURRENCY = 100
BATCH = 250
SUBMITTERS = 2
USERS = 100
WARM_UP = 0.25
KEEP_S = 600.0


class Nothing(msgspec.Struct):
    """No input."""


kinds: Kinds[None] = Kinds()


@kinds.kind(KIND, Nothing, Limits(concurrency=CONCURRENCY, time_limit_s=10))
async def noop(_: Context[None], __: Nothing) -> None:
    """Nothing."""


def _tasks(url: str) -> Tasks:
    return Tasks(
        connect_wire(url), QueueServer(connect(url)), keep_s=KEEP_S, most_open=10**6, most_waiting=10**6
    )


async def work(url: str) -> None:
    """Be the worker."""
    wire, tasks = connect_wire(url), _tasks(url)
    await tasks.create(KIND)
    outbox = Outbox(wire)
    telling = Telling(Whereabouts(wire), outbox)
    running: list[asyncio.Task[None]] = [asyncio.create_task(outbox.run())]

    def watch(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        running.append(asyncio.create_task(coroutine, name=name))
        return running[-1]

    def tell_all(changes: Sequence[Change]) -> None:
        tell(telling, changes)

    engine = Engine(
        kinds,
        None,
        TaskWork(wire, "bench", tasks.create, keep_s=KEEP_S),
        partial(connect_blocking, url, BLOCK_S),
        tell_all,
        lease_s=5.0,
        max_deliveries=4,
    )
    await engine.start(watch)
    print("ready", flush=True)
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)


async def run(tasks: Tasks, redis: Wire, count: int) -> float:
    """Have so many done. Answers the seconds."""
    base = time.time_ns()
    batches = iter(range(0, count, BATCH))

    async def submit() -> None:
        for begin in batches:
            numbers = range(begin, min(begin + BATCH, count))
            await tasks.submit_many(KIND, [_task(f"{base}_{number}", number) for number in numbers])

    start_s = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(SUBMITTERS)))
    while await redis.execute_command("XLEN", f"portal_queue:{KIND}"):  # noqa: ASYNC110 - it is in another process
        await asyncio.sleep(0.002)
    return time.perf_counter() - start_s


def _task(name: str, number: int) -> NewTask:
    return NewTask(f"task_{name}", f"user{number % USERS}", Lane.NORMAL, b"\x80")


async def drive(url: str, count: int, latencies: int) -> None:
    """Measure, and print what was found as one JSON object."""
    tasks, redis = _tasks(url), connect_wire(url)
    await run(tasks, redis, int(count * WARM_UP))
    base = time.time_ns()
    took_s = []
    for number in range(latencies):
        start_s = time.perf_counter()
        task = _task(f"{base}_idle_{number}", number)
        await tasks.submit(KIND, task)
        while (state := await tasks.get(task.task_id)) is None or state.status is not TaskStatus.COMPLETED:
            pass
        took_s.append(time.perf_counter() - start_s)
        await asyncio.sleep(0.003)
    print(json.dumps({"perS": count / await run(tasks, redis, count), "tookS": took_s}))


if __name__ == "__main__":
    role, address, *numbers = sys.argv[1:]
    uvloop.run(work(address) if role == "worker" else drive(address, *map(int, numbers)))
