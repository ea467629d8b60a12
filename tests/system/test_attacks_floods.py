"""Floods from who has not signed in: bombs of msgpack, and more addresses than one."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.system.cluster import Cluster, Process
from tests.system.guest import Guest
from tests.system.wire import Wire, envelope, leave

pytestmark = pytest.mark.servers

MIB = 1024 * 1024


def bombs() -> Iterator[bytes]:
    """Bodies of at most 8 KiB that ask for far more memory or time than they have bytes."""
    size = 8_000
    yield b"\x81\xa4data" + b"\x91" * size  # arrays in arrays
    yield b"\x81\xa4data" + b"\x81\xa1a" * (size // 3)  # maps in maps
    yield b"\x81\xa4data\xdd\xff\xff\xff\xff" + b"\xc0" * size  # 4 billion entries announced
    yield b"\x81\xa4data\xdf\xff\xff\xff\xff" + b"\xa0\xc0" * (size // 2)
    yield b"\x81\xa4data\xc6\xff\xff\xff\xff" + b"x" * size  # 4 GiB of bytes announced
    yield b"\xdc\x1f\x00" + b"\x80" * size  # empty maps
    yield b"\x81\xa4data" + b"\xdc\x04\x00" * (size // 3)  # 1,024 entries, each of which says so
    yield b"\x81\xa4data\xc9\xff\xff\xff\xff\x01" + b"x" * size  # an extension


class TestFloods:
    async def test_bombs_before_sign_in(self, house: Cluster, neighbour: Guest) -> None:
        """Each costs its sender the connection, and the node nothing that lasts."""
        node = house["SOCK001"]
        bodies = list(bombs())

        async def throw(body: bytes) -> dict[str, Any]:
            wire = await Wire.greeted(node.endpoint)
            wire.send(len(body).to_bytes(4, "big") + body)
            return await wire.goodbye()

        await asyncio.gather(*map(throw, bodies))
        before = house.memory_bytes(node)
        for _ in range(5):
            goodbyes = await asyncio.gather(*(throw(body) for body in bodies * 4))
            assert {goodbye["code"] for goodbye in goodbyes} == {"PROTOCOL_ERROR"}
        assert house.memory_bytes(node) - before < 8 * MIB
        await neighbour.is_served()

    @pytest.fixture
    def narrow(self, house: Cluster) -> Iterator[Process]:
        """A node with few places."""
        settings = {"limits.connections_per_ip": 3, "socketd.max_connections": 12}
        node = house.start_node(settings=settings)
        yield node
        node.kill()

    async def test_many_addresses(self, narrow: Process) -> None:
        """Each has its places, and all of them together those of the node; who is in stays in."""
        first = await Wire.greeted(narrow.endpoint)

        async def come(number: int) -> Wire | None:
            guest = await asyncio.open_connection(*narrow.endpoint, local_addr=(f"127.2.0.{number + 1}", 0))
            wire = Wire(*guest)
            wire.send(envelope("hello", 1, {"protocol": 1, "client": "one of many"}))
            message = await wire.message()
            return wire if message["type"] == "reply" else None

        came = [await come(number // 5) for number in range(50)]
        taken_in = [wire for wire in came if wire is not None]
        assert len(taken_in) == 11
        assert (await first.ask("ping", {}, 9))["status"] == 200
        leave([first, *taken_in])

    async def test_ipv6_addresses_of_one_network_are_one(self, house: Cluster) -> None:
        settings = {"socketd.host": "::1", "limits.connections_per_ip": 2}
        node = house.start_node(settings=settings)
        endpoint = ("::1", cast(int, node.port))
        wires = [await Wire.greeted(endpoint) for _ in range(2)]
        goodbye = await (await Wire.to(endpoint)).goodbye()
        assert goodbye["code"] == "TOO_MANY_CONNECTIONS"
        leave(wires)
        node.kill()
