"""A player waits and finalizes, over lost connections and nodes that go away."""

import asyncio

import pytest

from client import TakenOver, TicketLost
from protocol.errors import (
    SESSION_TAKEN_OVER,
    TICKET_NOT_FOUND,
    GoodbyeCode,
)
from protocol.messages.connection import Ping, Pong
from protocol.messages.waiting import TicketStatus
from tests.client.peer import Peer, Received
from tests.client.teaching import (
    READY,
    always,
    at,
    finalized,
    in_turn,
    kick,
    logged_in,
    place,
    player_of,
    teach,
)


async def test_waits_on_over_lost_connections(peers: list[Peer]) -> None:
    teach(peers, auth_login=always(logged_in()))
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        positions: list[int] = []
        waiting = asyncio.create_task(
            player.wait_until_ready(lambda update: positions.append(update.position))
        )
        for position in (3, 2, 1):
            while player.connection is None or not player.connection.is_open:
                await asyncio.sleep(0)
            _, here, _ = at(player, peers)
            streamed = await here.next("queue.stream")
            assert streamed.request.data == {"tid": "T1", "clientId": "C1"}
            streamed.reply(place(position=position))
            while position not in positions:
                await asyncio.sleep(0)
            if position > 1:
                streamed.connection.transport.abort()
                await player.connection.closed
        streamed.connection.event("QUEUE_READY", tid="T1", finalizeDeadlineSec=60)
        await waiting
        assert positions == [3, 2, 1]
        assert [len(peer.seen("queue.stream")) for peer in peers] in ([2, 1], [1, 2])


async def test_drained_while_waiting_goes_to_the_other_node(peers: list[Peer]) -> None:
    teach(peers, auth_login=always(logged_in()))
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        waiting = asyncio.create_task(player.wait_until_ready())
        connection, here, other = at(player, peers)
        (await here.next("queue.stream")).reply(place())
        connection.goodbye(GoodbyeCode.SERVER_DRAINING, retry_after_ms=1)
        (await other.next("queue.stream")).reply(place(READY, 0))
        await waiting
        await connection.closed.wait()


async def test_expired_ticket(peers: list[Peer]) -> None:
    def stream(received: Received) -> None:
        received.reply(place())
        received.connection.event("QUEUE_EXPIRED", tid="T1", reason="ABANDONED")

    teach(peers, auth_login=always(logged_in()), queue_stream=stream)
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        with pytest.raises(TicketLost, match="ABANDONED"):
            await player.wait_until_ready()
        with pytest.raises(TicketLost):
            await player.finalize()


@pytest.mark.parametrize("name", ["queue_stream", "auth_finalize"])
async def test_unknown_ticket(peers: list[Peer], name: str) -> None:
    teach(peers, auth_login=always(logged_in()), queue_stream=always(place(READY, 0)))
    teach(peers, **{name: in_turn(TICKET_NOT_FOUND)})
    async with player_of(peers) as player:
        with pytest.raises(TicketLost, match="TICKET_NOT_FOUND"):
            await player.sign_in("hong", "long enough")


@pytest.mark.parametrize("status", [TicketStatus.CANCELLED, TicketStatus.EXPIRED])
async def test_ticket_that_is_no_place_any_more(peers: list[Peer], status: TicketStatus) -> None:
    teach(peers, auth_login=always(logged_in()), queue_stream=always(place(status, 0)))
    async with player_of(peers) as player:
        with pytest.raises(TicketLost, match=status.value):
            await player.sign_in("hong", "long enough")


async def test_newer_login_holds_the_ticket(peers: list[Peer]) -> None:
    teach(peers, auth_login=always(logged_in()), queue_stream=in_turn(SESSION_TAKEN_OVER))
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        with pytest.raises(TakenOver):
            await player.wait_until_ready()
        with pytest.raises(TakenOver):
            await player.request(Ping())
        await player.login("hong", "long enough")
        assert isinstance(await player.request(Ping()), Pong)


async def test_kicked_out_while_waiting(peers: list[Peer]) -> None:
    teach(peers, auth_login=always(logged_in()), queue_stream=lambda received: kick(received.connection))
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        with pytest.raises(TakenOver, match="다른 곳에서"):
            await player.wait_until_ready()
        assert sum(len(peer.connections) for peer in peers) == 1


# Finalizing.


async def test_finalize_is_asked_again_elsewhere_with_the_same_key(peers: list[Peer]) -> None:
    teach(peers, auth_login=always(logged_in(READY)))
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        finalizing = asyncio.create_task(player.finalize())
        _, here, other = at(player, peers)
        first = await here.next("auth.finalize")
        first.connection.transport.abort()
        second = await other.next("auth.finalize")
        assert first.request.key == second.request.key
        assert first.request.key is not None
        second.reply(finalized())
        assert await finalizing == finalized()
