"""SAQ, set up for speed as its guide says: `worker URL` or `drive URL COUNT LATENCIES`."""

import asyncio
import json
import os
import sys
import time
from typing import Any

import uvloop
from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

CONCURRENCY = 100
BATCH = 500
WARM_UP = 0.25


def connect(url: str) -> RedisQueue:
    """A queue that may have as many commands under way as it works on jobs."""
    return RedisQueue(
        Redis.from_url(url, socket_timeout=None, max_connections=1000), max_concurrent_ops=CONCURRENCY
    )


async def noop(_: dict[str, Any]) -> None:
    """Nothing."""


async def work(url: str) -> None:
    """Be the worker."""
    queue = connect(url)
    worker = Worker(queue, functions=[noop], concurrency=CONCURRENCY)
    print("ready", flush=True)
    await worker.start()


async def run(queue: RedisQueue, count: int) -> float:
    """Have so many done. Answers the seconds."""
    start_s = time.perf_counter()
    for begin in range(0, count, BATCH):
        await asyncio.gather(*(queue.enqueue("noop") for _ in range(min(BATCH, count - begin))))
    while await queue.count("incomplete"):  # noqa: ASYNC110 - it is in another process
        await asyncio.sleep(0.002)
    return time.perf_counter() - start_s


async def drive(url: str, count: int, latencies: int) -> None:
    """Measure, and print what was found as one JSON object."""
    queue = connect(url)
    await queue.connect()
    await run(queue, int(count * WARM_UP))
    took_s = []
    for _ in range(latencies):
        start_s = time.perf_counter()
        job = await queue.enqueue("noop")
        assert job is not None, "it has no key that another could have"
        while not job.completed:  # `apply` looks once a second
            await job.refresh()
        took_s.append(time.perf_counter() - start_s)
        await asyncio.sleep(0.003)
    print(json.dumps({"perS": count / await run(queue, count), "tookS": took_s}), flush=True)
    os._exit(0)  # not all of it would end by itself


if __name__ == "__main__":
    role, address, *numbers = sys.argv[1:]
    uvloop.run(work(address) if role == "worker" else drive(address, *map(int, numbers)))
