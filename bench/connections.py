"""What an idle connection costs: resident memory of the nodes, before and after thousands said hello.

The clients are processes of their own (`python -m bench.connections --client …`), each with some thousand
connections of the client library from one loopback address, so that no address runs out of ports. Then every
connection is pinged, stays for a keepalive period, and is pinged again.
"""

import argparse
import asyncio
import contextlib
import math
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import TypeVar

import psutil
import uvloop

from bench import harness
from bench.harness import CannotMeasure, Result, at_least, at_most, rounded
from bench.system import HOST, System, running_system
from client import ClientError, Connection
from protocol.messages.connection import Ping
from runtime.settings import SocketdSettings

T = TypeVar("T")

PER_CLIENT = 5_000
"""Connections of one client process, from one address: well below the ports that a kernel gives out."""

MOST_AT_ONCE = 200
"""Connections that one client process opens at the same time."""

MOST_CLIENTS = 250
KEEPALIVE_S = SocketdSettings().keepalive_s
PING_TIMEOUT_S = 60.0
KIB = 1024


class Memory:
    """Memory of the nodes together, in bytes. What the kernel keeps for their sockets is not in it."""

    def __init__(self, system: System) -> None:
        self._nodes = [psutil.Process(pid) for name, pid in system.pids.items() if name.startswith("SOCK")]

    def resident(self) -> int:
        """Resident set."""
        return sum(node.memory_info().rss for node in self._nodes)

    def proportional(self) -> int:
        """Proportional set: what is shared between processes counts in part (Linux, else resident)."""
        return sum(getattr(node.memory_full_info(), "pss", node.memory_info().rss) for node in self._nodes)


class Client:
    """A client process; it does what it is told line by line and answers each with a number."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._to, self._from = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, number: int, port: int, count: int) -> "Client":
        """Start one for `count` connections to a node."""
        address = f"127.0.2.{number + 1}"
        arguments = ["-m", "bench.connections", "--client", address, str(port), str(count)]
        return cls(await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE))

    async def ask(self, order: str) -> int:
        """Have it done. Raises CannotMeasure when the client ends instead."""
        self._to.write(f"{order}\n".encode())
        answer = await self._from.readline()
        if not answer:
            raise CannotMeasure("A client process ended; what it said is above.")
        return int(answer)

    async def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def _clients(ports: Sequence[int], count: int) -> AsyncIterator[list[Client]]:
    clients: list[Client] = []
    try:
        for port, share in _shares(ports, count):
            clients.append(await Client.start(len(clients), port, share))
        yield clients
    finally:
        await asyncio.gather(*(client.stop() for client in clients))


def _shares(ports: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """Which client process opens how many connections to which port."""
    for index, port in enumerate(ports):
        left = count // len(ports) + (index < count % len(ports))
        while left:
            share = min(left, PER_CLIENT)
            yield port, share
            left -= share


async def measure(count: int, nodes: int) -> Result:
    """Run the benchmark with `count` connections spread over `nodes`."""
    machine = harness.machine()
    harness.allow_files(math.ceil(count / nodes) + harness.SPARE_FILES)
    async with running_system({}, nodes) as system:
        memory = Memory(system)
        async with _clients(system.ports, count) as clients:
            resident, proportional = memory.resident(), memory.proportional()
            start_s = time.perf_counter()
            opened = await _all(clients, "open")
            open_s = time.perf_counter() - start_s
            idle_resident, idle_proportional = memory.resident(), memory.proportional()
            answered = await _all(clients, "ping")
            await asyncio.sleep(KEEPALIVE_S)
            stayed = await _all(clients, "ping")
            kept_resident = memory.resident()
    figures = {
        "connections": opened,
        "nodes": nodes,
        "resident_before_bytes": resident,
        "resident_after_bytes": idle_resident,
        "resident_for_each_bytes": rounded((idle_resident - resident) / count),
        "proportional_for_each_bytes": rounded((idle_proportional - proportional) / count),
        "resident_for_each_after_a_keepalive_bytes": rounded((kept_resident - resident) / count),
        "opened_each_s": rounded(opened / open_s),
        "answered_a_ping": answered,
        "answered_a_ping_after_a_keepalive": stayed,
    }
    return Result("connections", figures, _goals(figures, count), machine)


async def _all(clients: Sequence[Client], order: str) -> int:
    return sum(await asyncio.gather(*(client.ask(order) for client in clients)))


def _goals(figures: dict[str, float], count: int) -> list[harness.Goal]:
    return [
        at_most("resident bytes a connection", figures["resident_for_each_bytes"], 8 * KIB),
        at_least("connections that answered a ping", figures["answered_a_ping"], count),
        at_least(
            "connections that answered after a keepalive", figures["answered_a_ping_after_a_keepalive"], count
        ),
    ]


async def be_client(address: str, port: int, count: int) -> None:
    """Be a client process: read orders from stdin until it ends."""
    connections: list[Connection] = []
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if order == "open":
            connections = await _open(address, port, count)
            print(len(connections), flush=True)
        else:
            print(await _ping(connections), flush=True)


async def _open(address: str, port: int, count: int) -> list[Connection]:
    gate = asyncio.Semaphore(MOST_AT_ONCE)

    async def one() -> Connection:
        async with gate:
            return await Connection.open(HOST, port, name="bench", local_address=address)

    return await _gathered(one() for _ in range(count))


async def _ping(connections: Sequence[Connection]) -> int:
    async def one(connection: Connection) -> bool:
        try:
            await connection.request(Ping(), timeout_s=PING_TIMEOUT_S)
        except (ClientError, TimeoutError) as error:
            print(f"A ping failed: {error}", file=sys.stderr)
            return False
        return True

    return sum(await _gathered(one(connection) for connection in connections))


async def _gathered(work: Iterator[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*work))


def _arguments() -> argparse.Namespace:
    parser = harness.arguments("connections", "Memory of a socket node for each idle connection.")
    parser.add_argument("--count", type=int, default=10_000, help="connections (default: 10000)")
    parser.add_argument("--nodes", type=int, default=1, help="socket nodes (default: 1)")
    parser.add_argument("--client", nargs=3, metavar=("ADDRESS", "PORT", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count < 1 or given.nodes < 1:
        parser.error("--count and --nodes are at least 1")
    if given.count > MOST_CLIENTS * PER_CLIENT:
        parser.error(f"--count is at most {MOST_CLIENTS * PER_CLIENT}")
    return given


if __name__ == "__main__":
    given = _arguments()
    if given.client:
        uvloop.run(be_client(given.client[0], int(given.client[1]), int(given.client[2])))
    else:
        harness.main(
            lambda: measure(given.count, given.nodes),
            as_json=given.json,
            time_limit_s=120 + given.count / 500,
        )
