"""Requests, replies, events and ends of one connection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client import Connection, ConnectionLost, Endpoint, RequestFailed
from protocol.connection import reply_frame
from protocol.errors import BUSY, UNSUPPORTED_VERSION, GoodbyeCode, ProtocolError
from protocol.messages import Message
from protocol.messages.auth import Login, Refresh, TokenPair
from protocol.messages.connection import Goodbye, HelloReply, Ping, Pong
from protocol.messages.waiting import QueueUpdate
from tests.client.peer import Peer, PeerConnection


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as peer:
        yield peer


@pytest.fixture
async def connection(peer: Peer) -> AsyncIterator[Connection]:
    connection = await Connection.open(*peer.endpoint)
    yield connection
    connection.abort()


def refresh(token: str) -> Refresh:
    return Refresh(refresh_token=token)


def tokens(token: str) -> TokenPair:
    return TokenPair(access_token=f"access-{token}", refresh_token=f"refresh-{token}", expires_in=60)


def send_update(to: PeerConnection, position: int) -> None:
    to.event("QUEUE_UPDATE", position=position, estimatedWaitSec=None, totalWaiting=9)


def update(position: int) -> QueueUpdate:
    return QueueUpdate(position=position, estimated_wait_sec=None, total_waiting=9)


async def test_says_hello_first_and_answers_are_typed(peer: Peer) -> None:
    connection = await Connection.open(*peer.endpoint, name="a-game")
    assert isinstance(connection.hello, HelloReply)
    assert connection.hello.server_id == "SOCK001"
    assert isinstance(await connection.request(Ping()), Pong)
    assert [request.type for request in peer.connections[0].seen] == ["hello", "ping"]
    assert peer.connections[0].seen[0].data == {"protocol": 1, "client": "a-game"}
    connection.close()
    await peer.connections[0].closed.wait()


async def test_key_and_data_arrive(peer: Peer, connection: Connection) -> None:
    answer = connection.send(Login(username="hong", password="hidden"), key="k1")
    received = await peer.next("auth.login")
    assert received.request.key == "k1"
    assert received.request.data["username"] == "hong"
    answer.cancel()


async def test_replies_in_any_order(peer: Peer, connection: Connection) -> None:
    names = [f"t{number}" for number in range(20)]
    asked = asyncio.gather(*(connection.request(refresh(name)) for name in names))
    received = [await peer.next("auth.refresh") for _ in names]
    for one in reversed(received):
        one.reply(tokens(one.request.data["refreshToken"]))
    assert await asked == [tokens(name) for name in names]
    assert connection.in_flight == 0


@pytest.mark.parametrize("chunk_bytes", [1, 3, 1000])
async def test_delivery_in_pieces(peer: Peer, connection: Connection, chunk_bytes: int) -> None:
    asked = [connection.send(refresh(name)) for name in ("a", "b", "c")]
    received = [await peer.next("auth.refresh") for _ in asked]
    frames = b"".join(
        reply_frame(one.request.id, 200, tokens(one.request.data["refreshToken"])) for one in received
    )
    for start in range(0, len(frames), chunk_bytes):
        received[0].connection.transport.write(frames[start : start + chunk_bytes])
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [tokens(name) for name in ("a", "b", "c")]


async def test_refusal_carries_everything(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    (await peer.next("auth.refresh")).refuse(BUSY, retry_after_ms=1500)
    with pytest.raises(RequestFailed) as failed:
        await asked
    assert failed.value.code == "BUSY"
    assert failed.value.status == 503
    assert failed.value.message == BUSY.message
    assert failed.value.retry_after_ms == 1500
    assert connection.is_open


async def test_answer_of_another_shape(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    received = await peer.next("auth.refresh")
    received.connection.write({"type": "reply", "id": received.request.id, "status": 200, "data": {"new": 1}})
    with pytest.raises(ProtocolError, match=r"auth\.refresh"):
        await asked
    assert connection.is_open


async def test_unknown_fields_are_ignored(peer: Peer, connection: Connection) -> None:
    asked = connection.send(Ping())
    assert isinstance(await asked, Pong)
    asked = connection.send(refresh("a"))
    received = await peer.next("auth.refresh")
    data: dict[str, Any] = {"accessToken": "x", "refreshToken": "y", "expiresIn": 1, "later": {"more": True}}
    received.connection.write(
        {"type": "reply", "id": received.request.id, "status": 200, "data": data, "trace": "t"}
    )
    assert await asked == TokenPair(access_token="x", refresh_token="y", expires_in=1)


async def test_timeout_leaves_the_connection_and_never_reuses_the_id(
    peer: Peer, connection: Connection
) -> None:
    with pytest.raises(TimeoutError, match=r"auth\.refresh"):
        await connection.request(refresh("late"), timeout_s=0.01)
    assert connection.in_flight == 0
    late = await peer.next("auth.refresh")
    for _ in range(50):
        await connection.request(Ping())
    late.reply(tokens("late"))
    await connection.request(Ping())
    ids = [request.id for request in peer.connections[0].seen]
    assert len(ids) == len(set(ids))


async def test_cancelled_request_is_forgotten(peer: Peer, connection: Connection) -> None:
    asked = asyncio.create_task(connection.request(refresh("a")))
    received = await peer.next("auth.refresh")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert connection.in_flight == 0
    received.reply(tokens("a"))
    await connection.request(Ping())


async def test_request_longer_than_the_node_takes(peer: Peer, connection: Connection) -> None:
    with pytest.raises(ValueError, match="bytes"):
        await connection.request(refresh("x" * 2_000_000))
    await connection.request(Ping())


# How it ends.


async def test_server_closes_with_requests_in_flight(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    (await peer.next("auth.refresh")).connection.transport.close()
    with pytest.raises(ConnectionLost) as lost:
        await asked
    assert lost.value.code is None
    assert isinstance(await connection.closed, ConnectionLost)
    with pytest.raises(ConnectionLost):
        await connection.request(Ping())


async def test_server_resets_within_a_frame(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    received = await peer.next("auth.refresh")
    received.connection.transport.write(reply_frame(received.request.id, 200, tokens("a"))[:-1])
    await asyncio.sleep(0)
    received.connection.transport.abort()
    with pytest.raises(ConnectionLost):
        await asked


async def test_goodbye_tells_those_who_wait_why(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    received = await peer.next("auth.refresh")
    received.connection.goodbye(GoodbyeCode.SLOW_CONSUMER, retry_after_ms=20)
    received.connection.transport.close()
    with pytest.raises(ConnectionLost, match="SLOW_CONSUMER") as lost:
        await asked
    assert lost.value.code == "SLOW_CONSUMER"
    assert lost.value.goodbye == connection.goodbye
    assert connection.goodbye is not None
    assert connection.goodbye.retry_after_ms == 20
    assert connection.goodbye.reconnect


async def test_draining_node_still_answers_then_the_client_leaves(peer: Peer, connection: Connection) -> None:
    goodbyes = connection.events()
    asked = connection.send(refresh("a"))
    received = await peer.next("auth.refresh")
    received.connection.goodbye(GoodbyeCode.SERVER_DRAINING)
    assert isinstance(await anext(goodbyes), Goodbye)
    assert not connection.is_open
    with pytest.raises(ConnectionLost, match="SERVER_DRAINING"):
        connection.send(Ping())
    received.reply(tokens("a"))
    assert await asked == tokens("a")
    await received.connection.closed.wait()


async def test_idle_client_leaves_on_goodbye(peer: Peer, connection: Connection) -> None:
    peer.connections[0].goodbye(GoodbyeCode.SERVER_DRAINING)
    assert (await connection.closed).code == "SERVER_DRAINING"
    await peer.connections[0].closed.wait()


async def test_lost_is_told_once(peer: Peer) -> None:
    told: list[ConnectionLost] = []
    connection = await Connection.open(*peer.endpoint, on_lost=told.append)
    connection.close()
    connection.close()
    await connection.closed
    connection.abort()
    assert [lost.message for lost in told] == ["This client closed the connection."]


async def test_close_fails_what_is_in_flight(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    connection.close()
    with pytest.raises(ConnectionLost):
        await asked


async def test_garbage_from_the_server(peer: Peer, connection: Connection) -> None:
    asked = connection.send(refresh("a"))
    (await peer.next("auth.refresh")).connection.transport.write(b"\xff\xff\xff\xff\x00")
    with pytest.raises(ConnectionLost, match="frame"):
        await asked


async def test_no_map_from_the_server(peer: Peer, connection: Connection) -> None:
    peer.connections[0].transport.write(b"\x00\x00\x00\x01\xc0")
    await connection.closed


# How it begins.


async def test_nobody_listens(nowhere: Endpoint) -> None:
    with pytest.raises(OSError):  # noqa: PT011  which one depends on the system
        await Connection.open(*nowhere)


async def test_no_answer_to_hello(peer: Peer) -> None:
    peer.answers["hello"] = peer.inbox.put_nowait
    with pytest.raises(TimeoutError):
        await Connection.open(*peer.endpoint, timeout_s=0.5)
    await (await peer.next("hello")).connection.closed.wait()


async def test_another_version(peer: Peer) -> None:
    peer.answers["hello"] = lambda hello: hello.refuse(UNSUPPORTED_VERSION)
    with pytest.raises(RequestFailed, match="UNSUPPORTED_VERSION"):
        await Connection.open(*peer.endpoint)
    await peer.connections[0].closed.wait()


async def test_turned_away_at_the_door(peer: Peer) -> None:
    def turn_away(hello: Any) -> None:
        hello.connection.goodbye(GoodbyeCode.TOO_MANY_CONNECTIONS)
        hello.connection.transport.close()

    peer.answers["hello"] = turn_away
    with pytest.raises(ConnectionLost) as lost:
        await Connection.open(*peer.endpoint)
    assert lost.value.code == "TOO_MANY_CONNECTIONS"


async def test_local_address(peer: Peer) -> None:
    connection = await Connection.open(*peer.endpoint, local_address="127.0.0.9")
    assert peer.connections[0].transport.get_extra_info("peername")[0] == "127.0.0.9"
    connection.close()


# Events.


async def test_callback_gets_typed_events_and_not_the_unknown(peer: Peer) -> None:
    told: list[tuple[str, Message]] = []
    connection = await Connection.open(*peer.endpoint, on_event=lambda *event: told.append(event))
    server = peer.connections[0]
    server.event("FROM_THE_FUTURE", anything=[1, 2])
    server.event("QUEUE_UPDATE", position="first")
    send_update(server, 3)
    await connection.request(Ping())
    assert told == [("QUEUE_UPDATE", update(3))]
    assert connection.is_open
    connection.close()


async def test_failing_callback_does_not_cost_the_connection(peer: Peer) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(name: str, event: Message) -> None:
        raise ZeroDivisionError(name)

    connection = await Connection.open(*peer.endpoint, on_event=fail)
    send_update(peer.connections[0], 3)
    await connection.request(Ping())
    assert isinstance(reported[0]["exception"], ZeroDivisionError)
    connection.close()


async def test_iterating_over_events(peer: Peer, connection: Connection) -> None:
    events = connection.events()
    for position in (3, 2):
        send_update(peer.connections[0], position)
    await connection.request(Ping())
    send_update(peer.connections[0], 1)
    peer.connections[0].transport.close()
    assert [event async for event in events] == [update(3), update(2), update(1)]
    assert [event async for event in connection.events()] == []


async def test_slow_reader_loses_the_oldest(peer: Peer, connection: Connection) -> None:
    events = connection.events(limit=2)
    for position in (4, 3, 2, 1):
        send_update(peer.connections[0], position)
    await connection.request(Ping())
    connection.close()
    assert [event async for event in events] == [update(2), update(1)]
    assert events.dropped == 2


async def test_newer_iterator_takes_the_events_over(peer: Peer, connection: Connection) -> None:
    older, newer = connection.events(), connection.events()
    send_update(peer.connections[0], 1)
    assert await anext(newer) == update(1)
    assert [event async for event in older] == []


# Keepalive.


async def test_silent_client_pings() -> None:
    async with Peer(keepalive_sec=0.05) as peer:
        peer.answers["ping"] = peer.inbox.put_nowait
        connection = await Connection.open(*peer.endpoint)
        for _ in range(3):
            (await peer.next("ping")).reply(Pong(server_time=1))
        assert connection.is_open
        assert connection.in_flight == 0
        connection.close()


async def test_dead_server_is_noticed() -> None:
    async with Peer(keepalive_sec=0.05) as peer:
        connection = await Connection.open(*peer.endpoint)
        peer.answers["ping"] = lambda ping: None
        asked = connection.send(refresh("a"))
        with pytest.raises(ConnectionLost, match="Nothing was heard"):
            await asked
        assert (await connection.closed).code is None
