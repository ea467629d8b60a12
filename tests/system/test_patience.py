"""Clients that say nothing, too little or too much, and those that never read: what a node puts up with."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from client import Connection
from protocol.frames import HEADER
from tests.system.cluster import Cluster, Process
from tests.system.guest import HEARING_S, PASSWORD, Guest
from tests.system.wire import HELLO, Wire, envelope, leave

pytestmark = pytest.mark.servers

SILENT_CONNECTIONS = 2000
RATE = 5
MIB = 1024 * 1024


@pytest.fixture
def node(house: Cluster) -> Process:
    return house["SOCK001"]


async def test_a_crowd_that_says_nothing(house: Cluster, node: Process, neighbour: Guest) -> None:
    before = house.memory_bytes(node)

    wires = await asyncio.gather(*(Wire.to(node.endpoint) for _ in range(SILENT_CONNECTIONS)))
    await neighbour.is_served()

    grown = house.memory_bytes(node) - before
    assert grown < SILENT_CONNECTIONS * 16 * 1024, f"{grown / SILENT_CONNECTIONS:.0f} bytes a connection"
    leave(wires)
    await asyncio.gather(*(wire.closed() for wire in wires))


async def test_frames_of_4_gib_take_no_memory(house: Cluster, node: Process, neighbour: Guest) -> None:
    before = house.memory_bytes(node)

    for _ in range(200):
        wire = await Wire.greeted(node.endpoint)
        wire.send(b"\xff\xff\xff\xff" + b"x" * 65_536)
        await wire.closed()

    assert house.memory_bytes(node) - before < 8 * MIB


async def test_a_client_that_never_reads(house: Cluster, node: Process, neighbour: Guest) -> None:
    before = house.memory_bytes(node)
    with socket.create_connection(node.endpoint) as deaf:
        deaf.sendall(envelope("hello", 1, HELLO))
        # Refused ones are answered as well, so the rate limit does not spare the client.
        pings = envelope("ping", 2, {}) * 500

        def send_until_cut() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    deaf.sendall(pings)

        async with asyncio.timeout(HEARING_S):
            await asyncio.to_thread(send_until_cut)

    assert house.memory_bytes(node) - before < 8 * MIB


@pytest.fixture(scope="module")
def hasty(house: Cluster) -> Iterator[Process]:
    """A node with little patience."""
    node = house.start_node(settings={"socketd.hello_timeout_s": 1, "socketd.keepalive_s": 0.5})
    yield node
    node.kill()


@pytest.fixture(scope="module")
def strict(house: Cluster) -> Iterator[Process]:
    """A node with low limits."""
    settings = {
        "socketd.request_timeout_s": 1,
        "limits.requests_per_second": RATE,
        "limits.connections_per_ip": 3,
    }
    node = house.start_node(settings=settings)
    yield node
    node.kill()


class TestPatience:
    async def test_no_hello(self, hasty: Process) -> None:
        wire = await Wire.to(hasty.endpoint)

        goodbye = await wire.goodbye()

        assert (goodbye["code"], goodbye["reconnect"]) == ("HANDSHAKE_TIMEOUT", True)

    async def test_a_byte_a_second(self, hasty: Process) -> None:
        wire = await Wire.to(hasty.endpoint)
        hello = envelope("hello", 1, HELLO)

        async def drip() -> None:
            for byte in hello:
                wire.send(bytes([byte]))
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        assert (await wire.goodbye())["code"] == "HANDSHAKE_TIMEOUT"
        dripping.cancel()

    async def test_keepalive_and_idle(self, hasty: Process) -> None:
        wire = await Wire.greeted(hasty.endpoint)

        heard = await wire.closed()

        names = [message["type"] for message in heard]
        assert names[-1] == "GOODBYE"
        assert heard[-1]["data"]["code"] == "IDLE"
        assert names[:-1] == ["KEEPALIVE"] * len(names[:-1])
        assert 2 <= len(names[:-1]) <= 6
        assert heard[0]["data"]["serverTime"] > 1_700_000_000_000

    async def test_who_never_ends_a_frame_is_idle(self, hasty: Process) -> None:
        wire = await Wire.greeted(hasty.endpoint)
        wire.send(HEADER.pack(8000))

        async def drip() -> None:
            while True:
                wire.send(b"x")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        assert (await wire.goodbye())["code"] == "IDLE"
        dripping.cancel()

    async def test_who_speaks_is_not_idle(self, hasty: Process) -> None:
        connection = await Connection.open(*hasty.endpoint)

        await asyncio.sleep(2.5)

        assert connection.is_open
        connection.close()


class TestLimits:
    async def test_too_many_requests(self, strict: Process) -> None:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        wire = await Wire.greeted(strict.endpoint)

        wire.send(b"".join(envelope("ping", number, {}) for number in range(2, 22)))
        replies = [await wire.reply(number) for number in range(2, 22)]

        refused = [reply["error"] for reply in replies if reply["status"] != 200]
        # One second's worth, of which hello is a part, and what comes with time.
        assert RATE - 1 <= len(replies) - len(refused) <= RATE + RATE * (clock() - began_s)
        assert {error["code"] for error in refused} == {"RATE_LIMITED"}
        # The server's clock and this one's may round differently: the first wait may be a hair too short.
        for retry_after_ms in (refused[-1]["retryAfterMs"], 10):
            await asyncio.sleep(retry_after_ms / 1000)
            pong = await wire.ask("ping", {}, 30)
            if pong["status"] == 200:
                break
        assert pong["status"] == 200
        wire.leave()

    async def test_too_many_connections_of_an_address(self, strict: Process) -> None:
        wires = [await Wire.greeted(strict.endpoint) for _ in range(3)]

        goodbye = await (await Wire.to(strict.endpoint)).goodbye()

        assert (goodbye["code"], goodbye["reconnect"]) == ("TOO_MANY_CONNECTIONS", True)
        assert goodbye["retryAfterMs"] > 0
        elsewhere = await Connection.open(*strict.endpoint, local_address="127.0.0.2")
        elsewhere.abort()
        wires.pop().leave()
        await asyncio.gather(*(wire.ask("ping", {}, 2) for wire in wires))
        again = await Wire.greeted(strict.endpoint)
        leave([*wires, again])

    async def test_no_answer_in_time(self, house: Cluster, strict: Process) -> None:
        wire = await Wire.greeted(strict.endpoint)
        house["login-1"].freeze()
        try:
            reply = await wire.ask("auth.login", {"username": "nobody", "password": PASSWORD}, 2)
        finally:
            house["login-1"].thaw()

        assert (reply["status"], reply["error"]["code"]) == (504, "TIMEOUT")
        # The late answer is nobody's any more.
        assert (await wire.ask("ping", {}, 2))["status"] == 200
        wire.leave()


async def test_frames_grow_with_the_sign_in(node: Process) -> None:
    guest = await Guest.at(node.endpoint)
    tokens = await guest.sign_up("grown-up")
    wire = await Wire.greeted(node.endpoint)
    assert (await wire.ask("auth.resume", {"accessToken": tokens.access_token}))["status"] == 200

    for number in range(2, 5):
        assert (await wire.ask("ping", {"payload": b"x" * 1_000_000}, number))["status"] == 200
    wire.send(HEADER.pack(MIB + 1))

    assert (await wire.goodbye())["code"] == "PROTOCOL_ERROR"


async def test_a_request_that_needs_a_sign_in(house: Cluster) -> None:
    node = house.start_node(program=house.with_one_request_more("socketd", owner="login"))
    wire = await Wire.greeted(node.endpoint)

    reply = await wire.ask("probe.request", {})

    assert (reply["status"], reply["error"]["code"]) == (401, "NOT_AUTHENTICATED")
    wire.leave()
    node.kill()


async def test_a_request_of_a_newer_release_than_the_worker(house: Cluster) -> None:
    node = house.start_node(program=house.with_one_request_more("socketd", owner="login"))
    tokens = await (guest := await Guest.at(node.endpoint)).sign_up("early-bird")
    wire = await Wire.greeted(node.endpoint)
    await wire.ask("auth.resume", {"accessToken": tokens.access_token}, 2)

    reply = await wire.ask("probe.request", {}, 3)

    assert (reply["status"], reply["error"]["code"]) == (503, "BUSY")
    assert reply["error"]["retryAfterMs"] > 0
    assert not house.redis.exists("dead_letters:login_queue:normal")
    leave([wire])
    guest.leave()
    node.kill()


async def test_a_full_queue_is_busy(house: Cluster) -> None:
    node = house.start_node()
    wires = [await Wire.greeted(node.endpoint)]
    house["login-1"].freeze()
    house.redis.hset("queue_meta:login_queue:normal", "maxSize", 0)
    try:
        reply = await wires[0].ask("auth.login", {"username": "nobody", "password": PASSWORD}, 2)
    finally:
        house.redis.hset("queue_meta:login_queue:normal", "maxSize", 100_000)
        house["login-1"].thaw()

    assert (reply["status"], reply["error"]["code"]) == (503, "BUSY")
    assert reply["error"]["retryAfterMs"] > 0
    leave(wires)
    node.kill()
