"""A player's stay over several nodes that come and go."""

import asyncio

import pytest

from client import ClientError, ConnectionLost, RequestFailed, TakenOver, link
from protocol.errors import (
    BUSY,
    INVALID_TOKEN,
    TIMEOUT,
    TOKEN_REUSED,
    ErrorKind,
    GoodbyeCode,
)
from protocol.messages import Nothing
from protocol.messages.auth import TokenPair
from protocol.messages.connection import KickedOut, Ping, Pong
from protocol.messages.waiting import QueueReady
from tests.client.peer import Peer, Received
from tests.client.teaching import (
    always,
    at,
    in_turn,
    keys,
    kick,
    player_of,
    resumed,
    teach,
    teach_sign_in,
)


async def test_lost_connection_is_replaced_and_resumed(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        connection, _, other = at(player, peers)
        connection.transport.abort()
        assert await anext(events) == resumed()
        (resume,) = other.seen("auth.resume")
        assert resume.data == {"accessToken": "A1"}
        assert resume.key is None
        assert at(player, peers)[1] is other
        connection, _, _ = at(player, peers)
        connection.event("QUEUE_READY", tid="T9", finalizeDeadlineSec=1)
        assert await anext(events) == QueueReady(tid="T9", finalize_deadline_sec=1)


async def test_drained_node_is_left_for_another(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        connection, _, other = at(player, peers)
        events = player.events()
        connection.goodbye(GoodbyeCode.SERVER_DRAINING, retry_after_ms=1)
        await anext(events)
        assert await anext(events) == resumed()
        assert at(player, peers)[1] is other


async def test_request_goes_on_after_a_reconnect(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        connection, _, _ = at(player, peers)
        teach(peers, ping=in_turn(None, Pong(server_time=7)))
        assert await player.request(Ping()) == Pong(server_time=7)
        assert connection.closed.is_set()
        assert len(peers[0].seen("auth.resume") + peers[1].seen("auth.resume")) >= 1


async def test_expired_access_token_is_exchanged_first(peers: list[Peer]) -> None:
    teach_sign_in(peers, expires_in=0)
    teach(peers, auth_refresh=always(TokenPair(access_token="A2", refresh_token="R2", expires_in=3600)))
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        connection, _, other = at(player, peers)
        connection.transport.abort()
        await anext(events)
        assert [request.type for request in other.connections[0].seen] == [
            "hello",
            "auth.refresh",
            "auth.resume",
        ]
        assert other.seen("auth.refresh")[0].data == {"refreshToken": "R1"}
        assert other.seen("auth.resume")[0].data == {"accessToken": "A2"}
        assert player.tokens is not None
        assert player.tokens.refresh_token == "R2"


async def test_refused_access_token_is_exchanged(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    teach(
        peers,
        auth_resume=in_turn(INVALID_TOKEN, resumed()),
        auth_refresh=always(TokenPair(access_token="A2", refresh_token="R2", expires_in=3600)),
    )
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        at(player, peers)[0].transport.abort()
        await anext(events)
        resumes = peers[0].seen("auth.resume") + peers[1].seen("auth.resume")
        assert [request.data["accessToken"] for request in resumes] == ["A1", "A2"]


@pytest.mark.parametrize("trouble", [None, BUSY, TIMEOUT])
async def test_refresh_keeps_its_key_until_it_is_answered(
    peers: list[Peer], trouble: ErrorKind | None
) -> None:
    teach_sign_in(peers, expires_in=0)
    fresh = TokenPair(access_token="A2", refresh_token="R2", expires_in=3600)
    teach(peers, auth_refresh=in_turn(trouble, trouble, fresh))
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        at(player, peers)[0].transport.abort()
        await anext(events)
        asked = keys(peers, "auth.refresh")
        assert len(asked) == 3
        assert len(set(asked)) == 1
        assert asked[0] is not None


async def test_stay_ends_when_the_tokens_are_worth_nothing(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    teach(peers, auth_resume=in_turn(INVALID_TOKEN), auth_refresh=in_turn(TOKEN_REUSED))
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        at(player, peers)[0].transport.abort()
        with pytest.raises(RequestFailed, match="TOKEN_REUSED"):
            await anext(events)
        with pytest.raises(RequestFailed, match="TOKEN_REUSED"):
            await player.request(Ping())
        assert len(keys(peers, "auth.refresh")) == 1


async def test_kicked_out_after_signing_in(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    told: list[str] = []
    async with player_of(peers) as player:
        player.on_event = lambda name, _: told.append(name)
        await player.sign_in("hong", "long enough")
        events = player.events()
        connection, _, _ = at(player, peers)
        kick(connection)
        assert isinstance(await anext(events), KickedOut)
        with pytest.raises(TakenOver):
            async for _ in events:
                pass
        with pytest.raises(TakenOver):
            await player.request(Ping())
        await connection.closed.wait()
        assert told == ["KICKED_OUT", "GOODBYE"]
        assert sum(len(peer.connections) for peer in peers) == 1


async def test_goodbye_without_return(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        at(player, peers)[0].goodbye(GoodbyeCode.PROTOCOL_ERROR)
        await anext(events)
        with pytest.raises(ConnectionLost, match="PROTOCOL_ERROR"):
            await anext(events)


async def test_taking_over_from_oneself_is_not_heard(peers: list[Peer]) -> None:
    """A node that thinks the old connection alive kicks it out when the player resumes elsewhere."""
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        connection, _, other = at(player, peers)
        teach(peers, auth_refresh=lambda received: None)
        assert player.connection is not None
        held = player.connection.send(Ping())
        old = player.connection
        connection.goodbye(GoodbyeCode.SERVER_DRAINING)
        await anext(events)
        await held
        kick(connection)
        await old.closed
        assert await anext(events) == resumed()
        assert isinstance(await player.request(Ping()), Pong)
        assert at(player, peers)[1] is other


async def test_a_new_stay_waits_for_no_resume_of_the_old_one(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        resumes: asyncio.Queue[Received] = asyncio.Queue()
        teach(peers, auth_resume=resumes.put_nowait)
        at(player, peers)[0].transport.abort()
        unanswered = await resumes.get()

        async with asyncio.timeout(10):
            await player.sign_in("kim", "long enough")

        assert at(player, peers)[0] is not unanswered.connection


async def test_logout(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    teach(peers, auth_logout=always(Nothing()))
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        connection, here, _ = at(player, peers)
        await player.logout()
        assert here.seen("auth.logout")[0].data == {"refreshToken": "R1"}
        assert [event async for event in events] == []
        await connection.closed.wait()
        with pytest.raises(ClientError, match="left"):
            await player.request(Ping())


async def test_close_while_reconnecting(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    player = player_of(peers)
    await player.sign_in("hong", "long enough")
    teach(peers, auth_resume=lambda received: player.close())
    connection, _, other = at(player, peers)
    connection.transport.abort()
    while not other.seen("auth.resume"):
        await asyncio.sleep(0)
    await other.connections[0].closed.wait()
    with pytest.raises(ClientError, match="left"):
        await player.request(Ping())


async def test_events_of_a_stay_that_is_over_end_at_once(peers: list[Peer]) -> None:
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        connection, _, _ = at(player, peers)
        first = player.events()
        kick(connection)
        assert isinstance(await anext(first), KickedOut)

        async with asyncio.timeout(10):
            with pytest.raises(TakenOver):
                await anext(player.events())


async def test_a_connection_that_was_heard_of_begins_the_pauses_anew(
    peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def at_once(count: int, _: int | None) -> float:
        failures.append(count)
        return 0.0

    monkeypatch.setattr(link, "pause_s", at_once)
    teach_sign_in(peers)
    async with player_of(peers) as player:
        await player.sign_in("hong", "long enough")
        events = player.events()
        for _ in range(3):
            connection, _, _ = at(player, peers)
            connection.event("QUEUE_READY", tid="T9", finalizeDeadlineSec=1)
            await anext(events)
            connection.transport.abort()
            assert await anext(events) == resumed()
    assert failures == [1, 1, 1]
