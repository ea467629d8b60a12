"""A player comes in: an account, a login, the turn; asked again until it is answered."""

import pytest

from client import ConnectionLost, Endpoint, Player, RequestFailed
from protocol.errors import (
    BUSY,
    INVALID_CREDENTIALS,
    INVALID_TICKET,
    TIMEOUT,
    TOO_MANY_ATTEMPTS,
    ErrorKind,
)
from protocol.messages.auth import Registered
from protocol.messages.waiting import QueueUpdate
from tests.client.peer import Peer, Received
from tests.client.teaching import (
    READY,
    always,
    at,
    finalized,
    in_turn,
    keys,
    logged_in,
    place,
    player_of,
    teach,
    teach_sign_in,
)


async def test_register(peers: list[Peer]) -> None:
    teach(peers, auth_register=always(Registered(user_id="hong")))
    async with player_of(peers) as player:
        assert (await player.register("Hong", "long enough", "h@x.kr", "홍")).user_id == "hong"
        (key,) = keys(peers, "auth.register")
        assert key is not None
        assert len(key) <= 64
        with pytest.raises(ValueError, match="password"):
            await player.register("Hong", "가" * 25, "h@x.kr", "홍")


async def test_sign_in_waits_for_the_turn(peers: list[Peer]) -> None:
    def stream(received: Received) -> None:
        received.reply(place())
        received.connection.event("QUEUE_UPDATE", position=1, estimatedWaitSec=4, totalWaiting=8)
        received.connection.event("QUEUE_READY", tid="another", finalizeDeadlineSec=60)
        received.connection.event("QUEUE_READY", tid="T1", finalizeDeadlineSec=60)

    teach(peers, auth_login=always(logged_in()), queue_stream=stream, auth_finalize=always(finalized()))
    updates: list[QueueUpdate] = []
    async with player_of(peers) as player:
        assert (await player.sign_in("hong", "long enough", updates.append)).user_id == "hong"
        assert [update.position for update in updates] == [1]  # Not 3 after it: that is older.
        assert player.tokens == finalized()
        assert player.user_id == "hong"
        assert player.ticket is None
        _, here, other = at(player, peers)
        assert [request.type for request in here.connections[0].seen] == [
            "hello",
            "auth.login",
            "queue.stream",
            "auth.finalize",
        ]
        assert other.connections == []


async def test_sign_in_waits_again_for_a_turn_that_was_lost(peers: list[Peer]) -> None:
    def stream(received: Received) -> None:
        received.reply(place())
        received.connection.event("QUEUE_READY", tid="T1", finalizeDeadlineSec=60)

    def finalize(received: Received) -> None:
        if len(keys(peers, "auth.finalize")) == 1:
            received.refuse(INVALID_TICKET)
        else:
            received.reply(finalized())

    teach(peers, auth_login=always(logged_in(READY)), queue_stream=stream, auth_finalize=finalize)
    async with player_of(peers) as player:
        assert (await player.sign_in("hong", "long enough")).user_id == "hong"
    assert len(keys(peers, "queue.stream")) == 1


async def test_ready_before_the_reply_to_stream(peers: list[Peer]) -> None:
    def stream(received: Received) -> None:
        received.connection.event("QUEUE_READY", tid="T1", finalizeDeadlineSec=60)
        received.reply(place())

    teach(peers, auth_login=always(logged_in()), queue_stream=stream)
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        await player.wait_until_ready()


async def test_ready_in_the_reply_to_stream(peers: list[Peer]) -> None:
    teach(peers, auth_login=always(logged_in()), queue_stream=always(place(READY, 0)))
    async with player_of(peers) as player:
        await player.login_with("R0")
        await player.wait_until_ready()
        (login,) = peers[0].seen("auth.login") + peers[1].seen("auth.login")
        assert login.data["refreshToken"] == "R0"


async def test_refusal_is_not_asked_again(peers: list[Peer]) -> None:
    teach(peers, auth_login=in_turn(INVALID_CREDENTIALS))
    async with player_of(peers) as player:
        with pytest.raises(RequestFailed, match="INVALID_CREDENTIALS"):
            await player.login("hong", "long enough")
        assert len(keys(peers, "auth.login")) == 1


@pytest.mark.parametrize("refusal", [BUSY, TOO_MANY_ATTEMPTS, TIMEOUT, None])
async def test_asked_again_with_the_same_key(peers: list[Peer], refusal: ErrorKind | None) -> None:
    teach(peers, auth_login=in_turn(refusal, refusal, logged_in()))
    async with player_of(peers) as player:
        await player.login("hong", "long enough")
        asked = keys(peers, "auth.login")
        assert len(asked) >= 3
        assert len(set(asked)) == 1
        await player.login("hong", "long enough")
        assert len(set(keys(peers, "auth.login"))) == 2


async def test_patience_ends_with_what_went_wrong(peers: list[Peer]) -> None:
    teach(peers, auth_login=in_turn(BUSY))
    with pytest.raises(RequestFailed, match="BUSY"):
        await player_of(peers, patience_s=0.1).login("hong", "long enough")


async def test_asking_again_later_than_patience_is_said_at_once(peers: list[Peer]) -> None:
    teach(peers, auth_login=lambda received: received.refuse(TOO_MANY_ATTEMPTS, retry_after_ms=60_000))
    async with player_of(peers) as player:
        with pytest.raises(RequestFailed, match="TOO_MANY_ATTEMPTS"):
            await player.login("hong", "long enough")
        assert len(keys(peers, "auth.login")) == 1


async def test_no_node_at_all(nowhere: Endpoint) -> None:
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        await Player([nowhere], patience_s=0.1).login("hong", "long enough")
    with pytest.raises(ValueError, match="endpoint"):
        Player([])


async def test_a_node_that_is_not_there_is_passed_over(peers: list[Peer], nowhere: Endpoint) -> None:
    teach_sign_in(peers)
    for _ in range(4):
        async with Player([nowhere, peers[0].endpoint], patience_s=20.0) as player:
            await player.sign_in("hong", "long enough")
