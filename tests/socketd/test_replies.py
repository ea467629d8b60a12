"""What workers send to a node's connections, with a real queue between: who is signed in where afterwards."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from client import Endpoint
from protocol.envelope import Delivery, SignIn
from runtime.sealing import Seals
from runtime.settings import Config, LimitsSettings, SocketdSettings
from socketd.departures import Departures
from socketd.dispatch import Dispatcher
from socketd.node import node_queue
from socketd.registry import Registry
from socketd.replies import Replies
from socketd.server import Door
from storage import keys
from storage.connections import connect, connect_wire
from storage.queues import Outbox, QueueServer, Subscription
from storage.tickets import Tickets
from storage.whereabouts import Whereabouts
from tests.system.wire import Wire

NODE = "SOCK001"
FIRST = 1
"""The id of the first connection."""


class Node:
    """A node's door and its queue. The first connection is there."""

    def __init__(self, url: str) -> None:
        settings, seals = SocketdSettings(port=0), Seals(bytes(32))
        self.redis, self._wire, self._blocking = connect(url), connect_wire(url), connect_wire(url)
        self._outbox, registry = Outbox(self._wire), Registry(FIRST, max_connections=10, max_per_peer=10)
        self._subscription = Subscription(
            self.redis, self._blocking, {keys.node_queue(NODE): (node_queue(Config()), 1)}, "boot", 0.1
        )
        self.whereabouts = Whereabouts(self._wire)
        self._departures = Departures(self.whereabouts, Tickets(self._wire, 900), NODE)
        queues = QueueServer(self.redis)
        self._replies = Replies(
            self._subscription, self._outbox, queues, registry, self._departures, NODE, seals
        )
        dispatcher = Dispatcher(settings, registry, self._outbox, seals)
        self._door = Door(settings, LimitsSettings(), registry, dispatcher, self._replies, self._departures)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> Endpoint:
        """Listen, and read the queue."""
        await self._subscription.create()
        await self._door.open()
        running = (self._outbox.run(), self._departures.run())
        self._tasks = [asyncio.create_task(each) for each in running]
        return "127.0.0.1", self._door.port

    async def signed_in(self, user_id: str, connection_id: int, answers: int | None = None) -> None:
        """Sign a user in at a connection, as a worker does: in Redis, then at the node."""
        session = keys.session(user_id)
        await self.redis.hset(session, items=["serverId", NODE, "connectionId", connection_id])
        delivery = Delivery(connection_id, b"", answers, SignIn(user_id))
        self._outbox.deliver(NODE, delivery)
        await self._outbox.flushed()
        await self._replies.take_once()
        await self._departures.said()

    async def close(self) -> None:
        """End all of it."""
        await self._door.close()
        for task in self._tasks:
            task.cancel()
        await self._wire.aclose()
        await self._blocking.aclose()
        await self.redis.aclose()


@pytest.fixture
async def node(valkey_url: str) -> AsyncIterator[Node]:
    node = Node(valkey_url)
    yield node
    await node.close()


async def test_a_connection_that_another_user_takes_is_the_first_one_s_no_more(node: Node) -> None:
    wire = await Wire.greeted(await node.open())
    await node.signed_in("hana", FIRST)
    assert await node.whereabouts.one("hana") is not None

    await node.signed_in("dami", FIRST)

    assert await node.whereabouts.one("hana") is None
    assert await node.whereabouts.one("dami") is not None
    wire.leave()


async def test_an_answer_that_comes_too_late_for_a_closed_connection_leaves_nobody_signed_in(
    node: Node,
) -> None:
    await node.open()
    await node.signed_in("hana", connection_id=7, answers=12)
    assert await node.whereabouts.one("hana") is None
