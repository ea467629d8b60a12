"""What thousands of idle connections cost: reported, not asserted, as it depends on the interpreter."""

import asyncio
import resource
import sys
from collections.abc import Callable

import psutil
import pytest

from client import Connection
from protocol.messages.connection import Ping

COUNT = 5000


async def open_in_waves(port: int) -> list[Connection]:
    connections: list[Connection] = []
    for _ in range(COUNT // 100):
        wave = (Connection.open("127.0.0.1", port) for _ in range(100))
        connections += await asyncio.gather(*wave)
    return connections


async def test_idle_connections(record_property: Callable[[str, object], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + 200:
        pytest.skip(f"Needs {COUNT + 200} open files, this machine lets a process have {hard}.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, COUNT + 200), hard))
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.client.peer",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    process = psutil.Process()
    tasks_before, memory_before = len(asyncio.all_tasks()), process.memory_info().rss
    connections = await open_in_waves(port)
    each_bytes = (process.memory_info().rss - memory_before) / COUNT
    record_property("idle_connection_bytes", each_bytes)
    print(f"{COUNT} idle connections: {each_bytes:.0f} bytes of resident memory each")
    assert len(asyncio.all_tasks()) == tasks_before
    await asyncio.gather(*(connection.request(Ping()) for connection in connections))
    for connection in connections:
        connection.abort()
    server.stdin.close()
    await server.wait()
