"""Players whose urgent work is under way go before others, where policies allow that to who hands it in."""

from dataclasses import replace

import structlog

from protocol.announcement import Announcement, PortalTaskSubmitted
from storage.audit import WhenFull
from storage.permissions import entry
from storage.policies import Question
from storage.raises import RAISED_TO, Raises
from storage.tickets import Record
from workers.login.room import LoginRoom

log = structlog.get_logger(__name__)

RECORD_LIFE_S = 86_400.0
"""How long it is remembered that an announcement has had its effect: as long as the bus keeps one."""


class Raising:
    """Raises players of whom the event bus says that they have urgent work."""

    def __init__(self, room: LoginRoom, raises: Raises) -> None:
        self._room = room
        self._raises = raises

    async def hear(self, announcement: Announcement) -> None:
        """Take one announcement. Raises StoreAway: it is then told again."""
        fact = announcement.fact
        if isinstance(fact, PortalTaskSubmitted) and await self._may(fact):
            moved = await self._raises.grant(fact.user_id, Record(announcement.id, RECORD_LIFE_S))
            log.debug("raised", user_id=fact.user_id, moved=moved)

    async def _may(self, fact: PortalTaskSubmitted) -> bool:
        """Whether who handed it in may raise its player. What is allowed is written down."""
        role = await self._room.users.role_of(fact.by)
        if role is None:
            return False
        rulebook = await self._room.policies.recent()
        facts = rulebook.facts(fact.by, role, await self._room.groups.of(fact.by))
        question = Question("queue:raise", f"queue:portal:{RAISED_TO.name}", {"taskType": fact.task_type})
        decision = rulebook.decide(facts, question)
        if decision.allowed:
            written = entry(fact.by, question, decision)
            reason = f"{decision.reason} {fact.user_id} by {fact.task_id}."
            await self._room.audit.append([replace(written, reason=reason)], WhenFull.COUNT)
        return decision.allowed
