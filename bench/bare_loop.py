"""The limit for the path of a request: two processes that pass messages to and fro over streams, no more.

The front appends requests, the back reads each batch and appends as many replies, the front reads those.
Each side appends and acknowledges what has gathered in one redis-py pipeline at a time and reads meanwhile.
There are no client sockets, no frames, no checks, and nothing of lobbyd.

`python -m bench.bare_loop URL` is the back.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from redis.asyncio import Redis

REQUESTS, REPLIES = "bare:requests", "bare:replies"
REQUEST_BYTES = 256
"""As long as the envelope of the request that is measured beside it."""

REPLY_BYTES = 160
NUMBER_BYTES = 8
READ_COUNT = 1000
BLOCK_MS = 500
SETTLE_S = 0.3


class End:
    """One end of the loop: reads one stream, appends to another. `take` is called with each message."""

    def __init__(self, url: str, reads: str, appends: str, take: Callable[[bytes], None]) -> None:
        self._redis, self._blocking = _client(url), _client(url)
        self._reads, self._appends, self._take = reads, appends, take
        self._messages: list[bytes] = []
        self._read_ids: list[bytes] = []
        self._gathered = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to read and to append."""
        await self._redis.xgroup_create(self._reads, "bare", "0", mkstream=True)
        self._tasks = [asyncio.create_task(self._reading()), asyncio.create_task(self._appending())]

    async def stop(self) -> None:
        """End both and hang up."""
        self._stopping = True
        self._gathered.set()
        await asyncio.gather(*self._tasks)
        await self._blocking.aclose()
        await self._redis.aclose()

    def append(self, message: bytes) -> None:
        """Append a message in the next pipeline."""
        self._messages.append(message)
        self._gathered.set()

    async def _reading(self) -> None:
        while not self._stopping:
            answer = await self._blocking.execute_command(
                *("XREADGROUP", "GROUP", "bare", "one", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS),
                *("STREAMS", self._reads, ">"),
            )
            for _, entries in answer or ():
                for entry_id, fields in entries:
                    self._read_ids.append(entry_id)
                    self._take(fields[1])
                self._gathered.set()

    async def _appending(self) -> None:
        while not self._stopping:
            await self._gathered.wait()
            self._gathered.clear()
            messages, self._messages = self._messages, []
            read_ids, self._read_ids = self._read_ids, []
            pipeline = self._redis.pipeline(transaction=False)
            for message in messages:
                pipeline.execute_command("XADD", self._appends, "*", "m", message)
            if read_ids:
                pipeline.execute_command("XACK", self._reads, "bare", *read_ids)
                pipeline.execute_command("XDEL", self._reads, *read_ids)
            await pipeline.execute()


class Front:
    """The front with its callers, each of which asks again as soon as it is answered."""

    def __init__(self, url: str) -> None:
        self._end = End(url, REPLIES, REQUESTS, self._answered)
        self._asked_s: dict[int, float] = {}
        self._running = False
        self._idle = asyncio.Event()
        self._took_s: list[float] = []

    async def start(self) -> None:
        """Begin to read; the back may still be starting."""
        await self._end.start()

    async def stop(self) -> None:
        """Hang up."""
        await self._end.stop()

    async def measure(self, callers: int, seconds: float) -> tuple[float, list[float]]:
        """Load with so many callers; answers a second, and what each took in seconds."""
        self._running = True
        self._idle.clear()
        for number in range(callers):
            self._ask(number)
        await asyncio.sleep(SETTLE_S)
        took_s: list[float] = []
        self._took_s = took_s
        start_s = time.perf_counter()
        await asyncio.sleep(seconds)
        self._took_s = []
        per_second = len(took_s) / (time.perf_counter() - start_s)
        self._running = False
        await self._idle.wait()
        return per_second, took_s

    def _ask(self, number: int) -> None:
        self._asked_s[number] = time.perf_counter()
        self._end.append(number.to_bytes(NUMBER_BYTES).ljust(REQUEST_BYTES, b"."))

    def _answered(self, message: bytes) -> None:
        number = int.from_bytes(message[:NUMBER_BYTES])
        self._took_s.append(time.perf_counter() - self._asked_s.pop(number))
        if self._running:
            self._ask(number)
        elif not self._asked_s:
            self._idle.set()


def _client(url: str) -> Redis:
    client = Redis.from_url(url, protocol=2)
    # The lists as Redis sends them: redis-py's own shape of them costs more than reading them.
    client.set_response_callback("XREADGROUP", _as_it_is)
    return client


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


async def back(url: str) -> None:
    """Answer every request until the process is ended."""

    def answer(message: bytes) -> None:
        end.append(message[:NUMBER_BYTES].ljust(REPLY_BYTES, b"."))

    end = End(url, REQUESTS, REPLIES, answer)
    await end.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(back(sys.argv[1]))
