"""Players who asked for opponents with their login: they wait once the event bus says that they are in.

Their wait began with the sign-in. What became of it is told by MATCH_FOUND or MATCH_TIMEOUT, as nobody
awaits an answer.
"""

import msgspec
import structlog
from msgspec.structs import replace

from protocol.announcement import Announcement, LoginCompleted
from protocol.envelope import Address
from protocol.messages.matching import Search
from storage.matches import Entry, Meeting, TimedOut
from storage.servers import now_ms
from storage.tickets import Record
from storage.whereabouts import Whereabouts
from workers.matching.matching import wish_of
from workers.matching.messenger import Messenger
from workers.matching.room import MatchingRoom

log = structlog.get_logger(__name__)

RECORD_LIFE_S = 86_400.0
"""How long it is remembered that an announcement has had its effect: as long as the bus keeps one."""

NOBODY = Address("", 0)
"""Who awaits the answer: the player is told by an event at once."""

_decoder = msgspec.msgpack.Decoder(Search)


class Joining:
    """Lets players wait whose sign-in is announced."""

    def __init__(self, room: MatchingRoom, messenger: Messenger, whereabouts: Whereabouts) -> None:
        self._room = room
        self._messenger = messenger
        self._whereabouts = whereabouts

    async def hear(self, announcement: Announcement) -> None:
        """Take one announcement. Raises StoreAway: it is then told again."""
        fact = announcement.fact
        if isinstance(fact, LoginCompleted) and fact.auto_match:
            record = Record(announcement.id, RECORD_LIFE_S)
            await self._join(fact.user_id, _decoder.decode(fact.auto_match), fact.completed_ms, record)

    async def _join(self, user_id: str, search: Search, since_ms: int, record: Record) -> None:
        skill = await self._room.skills.of(user_id, search.difficulty.value)
        wish = wish_of(user_id, search, skill)
        left_ms = min(wish.wait_ms, since_ms + wish.wait_ms - now_ms())
        if left_ms <= 0:
            await self._tell_too_late(user_id, wish.wait_ms)
            return
        entered = await self._room.matchmaker.enter(replace(wish, wait_ms=left_ms), record, NOBODY)
        log.debug("joined", user_id=user_id, outcome=entered.what.name)
        if entered.what is Entry.ALREADY_MATCHED and entered.meeting is not None:
            await self._tell_match(user_id, entered.meeting)

    async def _tell_match(self, user_id: str, meeting: Meeting) -> None:
        """Tell one who came back to a match that goes on."""
        address = await self._whereabouts.one(user_id)
        session = await self._room.board.session(meeting.session_id)
        if address is not None and session is not None:
            self._messenger.tell_one(session, user_id, address)

    async def _tell_too_late(self, user_id: str, waited_ms: int) -> None:
        """Nobody looked for opponents in time; who waits or plays by now is told nothing."""
        log.warning("nobody looked for opponents in time", user_id=user_id)
        if await self._room.board.standing(user_id) is None:
            address = await self._whereabouts.one(user_id)
            self._messenger.tell_timeout(TimedOut(user_id, waited_ms, address))
