"""Telling players of their matches, and that there are none."""

from collections.abc import Callable, Iterable, Sequence

import structlog

from protocol.connection import event_frame
from protocol.envelope import Address, Delivery
from protocol.messages.matching import Difficulty, MatchFound, MatchTimeout
from storage.errors import StoreAway
from storage.matches import Matches, Proposal, Session, TimedOut
from storage.queues import Outbox
from storage.servers import now_ms

log = structlog.get_logger(__name__)


class Messenger:
    """Sends MATCH_FOUND and MATCH_TIMEOUT. `write` is called with each session whose players know of it."""

    def __init__(self, outbox: Outbox, matches: Matches, write: Callable[[Session], None]) -> None:
        self._outbox = outbox
        self._matches = matches
        self._write = write
        self._told: list[Session] = []

    def tell_match(self, proposal: Proposal, to: Sequence[tuple[str, Address]]) -> None:
        """Tell these of its players that it has become a match; the others have their answer."""
        session = Session(
            session_id=proposal.session_id,
            difficulty=proposal.difficulty,
            level=proposal.level,
            region=proposal.region,
            cost=proposal.cost,
            players=tuple(user_id for user_id, _ in proposal.players),
            created_ms=now_ms(),
        )
        self._send(session, to)

    def tell_session(self, session: Session, addresses: Iterable[Address]) -> None:
        """Tell all players of a session again, since nobody knows whether they were told."""
        self._send(session, list(zip(session.players, addresses, strict=True)))

    def tell_one(self, session: Session, user_id: str, address: Address) -> None:
        """Tell one of its players of a session that goes on."""
        self._outbox.deliver(address.server_id, _found(session, user_id, address))

    def tell_timeout(self, ended: TimedOut) -> None:
        """Tell one who has waited long enough, if they are connected."""
        if ended.address is not None:
            frame = event_frame(MatchTimeout(wait_time=round(ended.waited_ms / 1000)))
            self._outbox.deliver(
                ended.address.server_id,
                Delivery(ended.address.connection_id, frame, user_id=ended.user_id),
            )

    async def note_told(self) -> None:
        """Note the sessions whose players have been told since. Raises StoreAway."""
        told, self._told = self._told, []
        try:
            await self._matches.told([session.session_id for session in told])
        except StoreAway:
            self._told += told
            raise
        for session in told:
            self._write(session)

    def _send(self, session: Session, to: Sequence[tuple[str, Address]]) -> None:
        left = len(to)
        if not left:
            self._told.append(session)

        def done(error: Exception | None) -> None:
            nonlocal left
            if error is not None:
                # It stays untold: a second later it is seen whether all players are there still.
                log.warning("cannot tell of a match", session=session.session_id, cause=str(error))
                return
            left -= 1
            if not left:
                self._told.append(session)

        for user_id, address in to:
            self._outbox.deliver(address.server_id, _found(session, user_id, address), done)


def _found(session: Session, user_id: str, address: Address) -> Delivery:
    found = MatchFound(
        game_session_id=session.session_id,
        matched_users=[each for each in session.players if each != user_id],
        difficulty=Difficulty(session.difficulty),
        level=session.level,
        region=session.region or None,
    )
    return Delivery(address.connection_id, event_frame(found), once=session.session_id, user_id=user_id)
