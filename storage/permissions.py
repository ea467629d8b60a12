"""The noun "permission": may this user do that? Decisions are kept for a while, and each is written down."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from storage import keys
from storage.audit import ALLOWED, DENIED, MOST_PENDING, NO_POLICY, Audit, AuditFull, Entry, WhenFull
from storage.database import Database
from storage.functions import Library
from storage.groups import Groups
from storage.policies import Decision, Facts, PolicyWatch, Question
from storage.tables import users
from storage.users import AccountStatus
from storage.wire import Executor

LIBRARY = Library("audit", "permissions")

DECISION_LIFE_S = 300
"""How long a decision is kept where nothing changes."""

MOST_KEPT_A_MINUTE = 100
"""Decisions kept for one user: who asks about ever new resources must not fill the memory."""

NO_ACCOUNT = Decision(False, "There is no such account that may be used.", None)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, the facts that it follows from (None without an account) and the policies' version."""

    version: str
    facts: Facts | None
    decision: Decision


class Permissions:
    """Decides for the users of one system. Raises StoreAway.

    A decision that asks nothing of the caller's context is kept in Redis and answered from there, at one
    round trip, until its time is over, or the policies, a group, or the user's role or groups change.
    """

    def __init__(
        self,
        redis: Executor,
        watch: PolicyWatch,
        groups: Groups,
        role_of: Callable[[str], Awaitable[str | None]],
        when_full: WhenFull = WhenFull.REFUSE,
    ) -> None:
        """`role_of` answers a user id's role, None for an account that may not be used.

        `when_full` is what becomes of a decision while the audit log is full.
        """
        self._redis = redis
        self._watch = watch
        self._groups = groups
        self._role_of = role_of
        self._when_full = when_full
        self._audit = Audit(redis)

    async def check(self, user_id: str, question: Question) -> Decision:
        """Whether the user may do it; the answer is written down before it is given."""
        version = None
        if not question.context:
            version, kept = await self._kept(user_id, question)
            if kept is not None:
                return kept
        found = await self.explain(user_id, question, version)
        if question.context or found.facts is None:
            await self._audit.append([entry(user_id, question, found.decision)], self._when_full)
        else:
            await self._keep(found.version, found.facts, question, found.decision)
        return found.decision

    async def explain(self, user_id: str, question: Question, version: str | None = None) -> Explanation:
        """What follows from the policies, and from which facts, without deciding anything.

        `version` is the one of the policies that the caller knows of.
        """
        role = await self._role_of(user_id)
        if role is None:
            return Explanation("", None, NO_ACCOUNT)
        rulebook = await (self._watch.at(version) if version else self._watch.current())
        facts = rulebook.facts(user_id, role, await self._groups.of(user_id))
        return Explanation(rulebook.version, facts, rulebook.decide(facts, question))

    async def _kept(self, user_id: str, question: Question) -> tuple[str, Decision | None]:
        """The version of the policies, and a decision that is kept and still good."""
        names = [
            keys.permission(user_id, question.action, question.resource), keys.POLICY_VERSION,
            keys.user(user_id), keys.user_groups(user_id), keys.AUDIT_LOGS, keys.AUDIT_PENDING,
            keys.AUDIT_LOST,
        ]  # fmt: skip
        asked = Entry(user_id, question.action, question.resource, "", "").texts()[:3]
        answer = await self._call("permission_read", names, MOST_PENDING, self._when_full.value, *asked)
        match answer:
            case [b"full"]:
                raise AuditFull
            case [version]:
                return version.decode(), None
            case _:
                version, allowed, reason, policy = answer
                return version.decode(), Decision(allowed == 1, reason.decode(), policy.decode() or None)

    async def _keep(self, version: str, facts: Facts, question: Question, decision: Decision) -> None:
        user_id = facts.user_id
        names = [
            keys.permission(user_id, question.action, question.resource),
            keys.limit("permissions", user_id), keys.AUDIT_LOGS, keys.AUDIT_PENDING, keys.AUDIT_LOST,
        ]  # fmt: skip
        ends = datetime.now(UTC) + timedelta(seconds=DECISION_LIFE_S)
        await self._call(
            "permission_keep", names, version, facts.role, ",".join(facts.groups),
            "true" if decision.allowed else "false", decision.reason, decision.policy_matched or "",
            ends.strftime("%Y-%m-%dT%H:%M:%SZ"), DECISION_LIFE_S * 1000, MOST_KEPT_A_MINUTE,
            *entry(user_id, question, decision).texts(), MOST_PENDING,
        )  # fmt: skip

    async def _call(self, function: str, names: list[str], *args: Any) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


async def stored_role(database: Database, user_id: str) -> str | None:
    """A user's role as SQL has it, None for an account that may not be used. Raises StoreAway."""
    query = select(users.c.role).where(
        users.c.user_id == user_id, users.c.status == AccountStatus.ACTIVE.value
    )
    found = await database.read(lambda connection: connection.scalar(query))
    return None if found is None else str(found)


def entry(user_id: str, question: Question, decision: Decision) -> Entry:
    """A decision as the audit log has it."""
    return Entry(
        who=user_id,
        action=question.action,
        resource=question.resource,
        result=ALLOWED if decision.allowed else DENIED,
        policy=decision.policy_matched or NO_POLICY,
        reason=decision.reason,
    )
