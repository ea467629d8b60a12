"""The node's door on a real socket, with nothing behind it: what the node answers by itself."""

from collections.abc import AsyncIterator

import pytest

from client import Endpoint
from runtime.sealing import Seals
from runtime.settings import Config, LimitsSettings, SocketdSettings
from socketd.connection import REFUSALS
from socketd.departures import Departures
from socketd.dispatch import Dispatcher
from socketd.node import node_queue
from socketd.registry import Registry
from socketd.replies import Replies
from socketd.server import Door
from storage.connections import connect, connect_wire
from storage.queues import Outbox, QueueServer, Subscription
from storage.tickets import Tickets
from storage.whereabouts import Whereabouts
from tests.system.wire import Wire, envelope

NOWHERE = "redis://127.0.0.1:1/0"
RATE = 50
FLOOD = 20_000


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A door that takes RATE requests a second from a connection."""
    settings = SocketdSettings(port=0)
    redis, wire = connect(NOWHERE), connect_wire(NOWHERE)
    outbox, registry = Outbox(wire), Registry(1, max_connections=100, max_per_peer=100)
    subscription = Subscription(redis, wire, {"SOCK001_Q": (node_queue(Config()), 1)}, "boot", block_s=0.1)
    departures = Departures(Whereabouts(wire), Tickets(wire, 900), "SOCK001")
    seals = Seals(bytes(32))
    replies = Replies(subscription, outbox, QueueServer(redis), registry, departures, "SOCK001", seals)
    dispatcher = Dispatcher(settings, registry, outbox, seals)
    door = Door(settings, LimitsSettings(requests_per_second=RATE), registry, dispatcher, replies, departures)
    await door.open()
    yield ("127.0.0.1", door.port)
    await door.close()
    await redis.aclose()


async def test_who_asks_on_and_on_is_cut_and_the_others_are_served(endpoint: Endpoint) -> None:
    flooding = [await Wire.greeted(endpoint) for _ in range(3)]
    polite = await Wire.greeted(endpoint)

    for wire in flooding:
        wire.send(b"".join(envelope("ping", number, {}) for number in range(FLOOD)))
    for number in range(RATE // 2):
        assert (await polite.ask("ping", {}, number))["status"] == 200

    for wire in flooding:
        assert len(await wire.closed()) < FLOOD / 4
    polite.leave()


async def test_who_is_refused_for_a_moment_stays(endpoint: Endpoint) -> None:
    wire = await Wire.greeted(endpoint)
    asked = range(2, RATE * REFUSALS)

    wire.send(b"".join(envelope("ping", number, {}) for number in asked))

    statuses = [(await wire.reply(number))["status"] for number in asked]
    assert set(statuses) == {200, 429}
    wire.leave()
