"""A player's stay over several nodes that come and go."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from client import ClientError, ConnectionLost, Player, RequestFailed, TakenOver, TicketLost, link
from protocol.errors import (
    BUSY,
    INVALID_CREDENTIALS,
    INVALID_TICKET,
    INVALID_TOKEN,
    SESSION_TAKEN_OVER,
    TICKET_NOT_FOUND,
    TIMEOUT,
    TOKEN_REUSED,
    TOO_MANY_ATTEMPTS,
    ErrorKind,
    GoodbyeCode,
)
from protocol.messages import Message, Nothing
from protocol.messages.auth import Finalized, LoggedIn, Registered, Resumed, TokenPair
from protocol.messages.connection import KickedOut, Ping, Pong
from protocol.messages.waiting import Place, QueueReady, QueueUpdate, TicketStatus
from tests.client.peer import Answer, Peer, PeerConnection, Received

PENDING, READY = TicketStatus.PENDING, TicketStatus.READY


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    async with Peer("SOCK001") as first, Peer("SOCK002") as second:
        yield [first, second]


def player_of(peers: list[Peer], patience_s: float = 20.0) -> Player:
    return Player([peer.endpoint for peer in peers], patience_s=patience_s)


def logged_in(status: TicketStatus = PENDING) -> LoggedIn:
    return LoggedIn(
        tid="T1",
        client_id="C1",
        queue_type="portal",
        status=status,
        position=3,
        total_waiting=9,
        estimated_wait_sec=None,
    )


def place(status: TicketStatus = PENDING, position: int = 3) -> Place:
    return Place(status=status, position=position, total_waiting=9, estimated_wait_sec=None)


def finalized(expires_in: int = 3600) -> Finalized:
    return Finalized(access_token="A1", refresh_token="R1", expires_in=expires_in, user_id="hong")


def resumed() -> Resumed:
    return Resumed(
        user_id="hong",
        roles=[],
        permissions=[],
        expires_in=3600,
        match=None,
        tasks=["t1"],
        unread_notifications=2,
    )


def always(data: Message) -> Answer:
    return lambda received: received.reply(data)


def in_turn(*answers: Message | ErrorKind | None) -> Answer:
    """Answer with each of `answers` in turn, the last one for good; None breaks the connection."""
    left = list(answers)

    def answer(received: Received) -> None:
        one = left.pop(0) if len(left) > 1 else left[0]
        if one is None:
            received.connection.transport.abort()
        elif isinstance(one, ErrorKind):
            received.refuse(one, retry_after_ms=1)
        else:
            received.reply(one)

    return answer


def teach(peers: list[Peer], **answers: Answer) -> None:
    """Have each peer answer `auth_login` and so on."""
    for peer in peers:
        peer.answers.update({name.replace("_", ".", 1): answer for name, answer in answers.items()})


def teach_sign_in(peers: list[Peer], expires_in: int = 3600) -> None:
    teach(
        peers,
        auth_login=always(logged_in(READY)),
        auth_finalize=always(finalized(expires_in)),
        auth_resume=always(resumed()),
    )


def at(player: Player, peers: list[Peer]) -> tuple[PeerConnection, Peer, Peer]:
    """The server's side of the player's connection, its peer, and the other peer."""
    assert player.connection is not None
    here, other = peers if player.connection.hello.server_id == "SOCK001" else reversed(peers)
    return here.connections[-1], here, other


def keys(peers: list[Peer], name: str) -> list[str | None]:
    return [request.key for peer in peers for request in peer.seen(name)]


# Coming in.


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


async def test_no_node_at_all() -> None:
    async with Peer() as peer:
        nowhere = peer.endpoint
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        await Player([nowhere], patience_s=0.1).login("hong", "long enough")
    with pytest.raises(ValueError, match="endpoint"):
        Player([])


async def test_a_node_that_is_not_there_is_passed_over(peers: list[Peer]) -> None:
    async with Peer() as peer:
        nowhere = peer.endpoint
    teach_sign_in(peers)
    for _ in range(4):
        async with Player([nowhere, peers[0].endpoint], patience_s=20.0) as player:
            await player.sign_in("hong", "long enough")


# Waiting.


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


def kick(connection: PeerConnection) -> None:
    message = KickedOut(reason="TAKEN_OVER").message
    connection.event("KICKED_OUT", reason="TAKEN_OVER", message=message)
    connection.goodbye(GoodbyeCode.TAKEN_OVER)
    connection.transport.close()


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


# Staying.


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
