"""What a player's peers are taught to answer, and what they have seen of it."""

from client import Player
from protocol.errors import (
    ErrorKind,
    GoodbyeCode,
)
from protocol.messages import Message
from protocol.messages.auth import Finalized, LoggedIn, Resumed
from protocol.messages.connection import KickedOut
from protocol.messages.waiting import Place, TicketStatus
from tests.client.peer import Answer, Peer, PeerConnection, Received

PENDING, READY = TicketStatus.PENDING, TicketStatus.READY


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


def kick(connection: PeerConnection) -> None:
    message = KickedOut(reason="TAKEN_OVER").message
    connection.event("KICKED_OUT", reason="TAKEN_OVER", message=message)
    connection.goodbye(GoodbyeCode.TAKEN_OVER)
    connection.transport.close()
