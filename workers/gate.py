"""The gates that policies keep: what a worker is asked that not everybody may ask.

The defaults of these policies are in `storage/migrations/versions/v0008_gates.py`; all others, an operator's.
"""

import asyncio
from typing import Any

from protocol.errors import FORBIDDEN, RequestError
from runtime.secrets import Secrets
from storage.audit import WhenFull
from storage.database import Database
from storage.groups import Groups
from storage.permissions import Permissions
from storage.policies import Decision, Policies, PolicyWatch, Question
from storage.users import Users
from storage.wire import Wire
from workers.requests import Call, sender

OPEN_S = 0.5
"""For so long a worker takes it that what was allowed still is, as sign-ins do (`LOOK_S` in
`storage/policies/store.py`): a game's server that hands in a thousand scores a second is one question in this
time, and one line of the audit log. What is denied is asked anew each time, once for all who ask then."""

MOST_OPEN = 4096
"""Open gates that a worker remembers; past it it forgets them and begins anew."""


class Gate:
    """Asks the policies. Every method raises StoreAway."""

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions
        self._open_until_s: dict[tuple[str, str, str], float] = {}
        self._asking: dict[tuple[str, str, str], tuple[float, asyncio.Future[Decision]]] = {}

    async def let_in(self, call: Call[Any]) -> None:
        """Raise RequestError FORBIDDEN unless the sender may send this request, of those that are `gated`."""
        await self.need(call, _about("request:send", call), "You may not send this request")

    async def acting_for(self, call: Call[Any], user_id: str | None) -> str:
        """The user whom a request is about: the sender, or the one that it names.

        Raises RequestError FORBIDDEN where it names another and the sender may not act for others.
        """
        who = sender(call)
        if user_id is None or user_id == who:
            return who
        await self.need(call, _about("user:act_for", call), "You may not name another user")
        return user_id

    async def may_act_for(self, call: Call[Any], user_id: str) -> bool:
        """Whether it is the sender, or the sender may act for others."""
        return user_id == sender(call) or await self._ask(call, _about("user:act_for", call)) is None

    async def need(self, call: Call[Any], question: Question, refusal: str) -> None:
        """Raise RequestError FORBIDDEN, in these words and the decision's, unless the sender may do it."""
        reason = await self._ask(call, question)
        if reason is not None:
            raise RequestError(FORBIDDEN, f"{refusal}: {reason}")

    async def _ask(self, call: Call[Any], question: Question) -> str | None:
        """Why not, None for what is allowed."""
        who = sender(call)
        name = (who, question.action, question.resource)
        clock = asyncio.get_running_loop().time
        if clock() < self._open_until_s.get(name, 0.0):
            return None
        if name not in self._asking:
            task = asyncio.ensure_future(self._permissions.check(who, question))
            self._asking[name] = clock(), task
            task.add_done_callback(lambda _: self._asking.pop(name))
        asked_s, asking = self._asking[name]
        decision = await asyncio.shield(asking)  # who is cancelled does not cancel it for the others
        if not decision.allowed:
            self._open_until_s.pop(name, None)
            return decision.reason
        if len(self._open_until_s) >= MOST_OPEN:
            self._open_until_s.clear()
        self._open_until_s[name] = asked_s + OPEN_S
        return None


def open_gate(database: Database, wire: Wire, secrets: Secrets) -> Gate:
    """The gate of a worker that has no other use for policies."""
    users, groups = Users(database, wire, secrets), Groups(database, wire)
    watch = PolicyWatch(Policies(database, wire))
    return Gate(Permissions(wire, watch, groups, users.role_of, WhenFull.COUNT))


def _about(action: str, call: Call[Any]) -> Question:
    """What is asked of a request, such as `request:send` on `request:game:finish`."""
    return Question(action, f"request:{call.envelope.type.replace('.', ':')}", {})
