"""taskiq on Redis streams, set up for speed by its guide: `worker URL` or `drive URL COUNT LATENCIES`."""

import asyncio
import json
import os
import sys
import time

import uvloop
from redis.asyncio import Redis
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

CONCURRENCY = 100
BATCH = 100
WARM_UP = 0.25
URL = "TASKIQ_PEER_URL"

url = os.environ.get(URL, sys.argv[2] if len(sys.argv) > 2 else "")
broker = (
    RedisStreamBroker(url, max_connection_pool_size=2 * CONCURRENCY, socket_timeout=None)
    .with_result_backend(
        RedisAsyncResultBackend(
            url,
            max_connection_pool_size=2 * CONCURRENCY,
            socket_timeout=None,
            result_ex_time=600,
            keep_results=True,
        )
    )
    .with_serializer(ORJSONSerializer())
)


@broker.task(task_name="noop")  # type: ignore[untyped-decorator]
async def noop() -> None:
    """Nothing."""


async def run(redis: Redis, count: int) -> float:
    """Have so many done, whose results are keys. Answers the seconds."""
    wanted = await redis.dbsize() + count
    start_s = time.perf_counter()
    for begin in range(0, count, BATCH):
        await asyncio.gather(*(noop.kiq() for _ in range(min(BATCH, count - begin))))
    while await redis.dbsize() < wanted:  # noqa: ASYNC110 - it is in another process
        await asyncio.sleep(0.002)
    return time.perf_counter() - start_s


async def drive(count: int, latencies: int) -> None:
    """Measure, and print what was found as one JSON object."""
    redis = Redis.from_url(url)
    await broker.startup()
    await run(redis, int(count * WARM_UP))
    took_s = []
    for _ in range(latencies):
        start_s = time.perf_counter()
        task = await noop.kiq()
        await task.wait_result(check_interval=0)
        took_s.append(time.perf_counter() - start_s)
        await asyncio.sleep(0.003)
    print(json.dumps({"perS": count / await run(redis, count), "tookS": took_s}), flush=True)
    os._exit(0)  # not all of it would end by itself


if __name__ == "__main__":
    role, address, *numbers = sys.argv[1:]
    if role == "worker":
        program = "taskiq"
        at_once = ["--max-async-tasks", str(CONCURRENCY), "--max-prefetch", str(CONCURRENCY)]
        options = ["--workers", "1", *at_once, "--no-parse", "--log-level", "ERROR"]
        place = os.path.dirname(os.path.abspath(__file__))
        os.chdir(place)
        os.execve(
            sys.executable,
            [sys.executable, "-m", program, "worker", "taskiq_peer:broker", *options],
            {**os.environ, URL: address},
        )
    uvloop.run(drive(*map(int, numbers)))
