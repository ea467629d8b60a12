"""All policies at one moment, compiled, and the decisions that follow from them. Pure.

A rule that denies beats any that allows; a rule whose condition cannot be evaluated denies, too, whatever
its effect; and what no rule allows is not allowed.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from protocol.messages import TRUSTED
from storage.policies.conditions import Circumstances, Condition, ConditionFailed, Facts, condition
from storage.policies.matching import SEPARATOR, Pattern
from storage.policies.policy import Policy, Rule

K = TypeVar("K")
V = TypeVar("V")

MOST_KNOWN = 4096
"""Decisions, and facts, that a rulebook remembers; past it it forgets them and begins anew."""

NOTHING_MATCHES = "No policy allows this."

BEAR = "role:bear"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, why, and by which policy's word; None where no policy has one."""

    allowed: bool
    reason: str
    policy_matched: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to do. `context` is what the caller says of it, and no more than that."""

    action: str
    resource: str
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """What a group is called, and what belonging to it permits."""

    group_name: str
    description: str
    permissions: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Entry:
    policy: Policy
    number: int
    rule: Rule
    action: Pattern
    resource: Pattern
    condition: Condition | None
    broken: str | None = None

    @property
    def is_personal(self) -> bool:
        return self.condition is not None and self.condition.is_personal

    def holds(self, circumstances: Circumstances) -> bool:
        if self.broken is not None:
            raise ConditionFailed(self.broken)
        return self.condition is None or self.condition.holds(circumstances)

    def decision(self, allowed: bool, failure: str | None = None) -> Decision:
        place = f'rule {self.number} of policy "{self.policy.policy_name}"'
        if failure is not None:
            reason = f"Denied: the condition of {place} failed: {failure}"
        else:
            reason = f"{'Allowed' if allowed else 'Denied'} by {place}."
        return Decision(allowed, reason, self.policy.policy_id)


def bearing(role: str) -> Question:
    """Whether a session may bear a role."""
    return Question(BEAR, f"role:{role}", {})


class Rulebook:
    """The policies of one version, and what belonging to a group permits."""

    def __init__(self, version: str, policies: Sequence[Policy], groups: Mapping[str, GroupRecord]) -> None:
        """`groups` are by id. A rule that cannot be used, since somebody changed it by hand, fails."""
        self.version = version
        self.policies = policies
        self.groups = groups
        self._known: dict[tuple[object, ...], Decision] = {}
        self._known_facts: dict[tuple[str, frozenset[str]], Facts] = {}
        self._entries = [_entry(policy, *each) for policy in policies for each in enumerate(policy.rules, 1)]
        self._bearing_is_personal = any(
            entry.is_personal for entry in self._entries if entry.action.matches(BEAR.split(SEPARATOR))
        )

    def facts(self, user_id: str, role: str, groups: Set[str]) -> Facts:
        """What conditions may know of a user."""
        what = role, frozenset(groups)
        known = self._known_facts.get(what)
        if known is None:
            known = self._facts(user_id, role, groups)
            if not self._bearing_is_personal:
                _remember(self._known_facts, what, known)
        return replace(known, user_id=user_id)

    def _facts(self, user_id: str, role: str, groups: Set[str]) -> Facts:
        mine = sorted(groups)
        permissions = {
            name for group_id in mine if group_id in self.groups for name in self.groups[group_id].permissions
        }
        alone = Facts(user_id, role, [role], mine, sorted(permissions))
        return replace(alone, roles=list(self.bearing(alone)))

    def bearing(self, facts: Facts) -> dict[str, Decision]:
        """The roles that a session of the user bears, and the decisions that let it.

        Rules about bearing a role know of no other role than the account's own.
        """
        alone = replace(facts, roles=[facts.role])
        asked = {
            role: self.decide(alone, bearing(role)) for role in dict.fromkeys((facts.role, *sorted(TRUSTED)))
        }
        return {role: decision for role, decision in asked.items() if decision.allowed}

    def decide(self, facts: Facts, question: Question) -> Decision:
        """Whether the user may do it.

        What was decided without a context, by nothing that asks for the user's id, is decided once for all
        of the same role, groups and permissions: logins ask the same few questions for everybody.
        """
        if question.context:
            return _decide(facts, question, list(self._matching(question)))
        asked = (
            *(question.action, question.resource, facts.role),
            *(tuple(facts.roles), tuple(facts.groups), tuple(facts.permissions)),
        )
        known = self._known.get(asked)
        if known is not None:
            return known
        matching = list(self._matching(question))
        decision = _decide(facts, question, matching)
        if not any(entry.is_personal for entry in matching):
            _remember(self._known, asked, decision)
        return decision

    def _matching(self, question: Question) -> Iterable[_Entry]:
        action, resource = question.action.split(SEPARATOR), question.resource.split(SEPARATOR)
        return (
            entry
            for entry in self._entries
            if entry.action.matches(action) and entry.resource.matches(resource)
        )


def _decide(facts: Facts, question: Question, matching: Sequence[_Entry]) -> Decision:
    if not matching:
        return Decision(False, NOTHING_MATCHES, None)
    circumstances = Circumstances(facts, question.action, question.resource, question.context)
    failed: Decision | None = None
    allowed: Decision | None = None
    for entry in matching:
        try:
            holds = entry.holds(circumstances)
        except ConditionFailed as failure:
            failed = failed or entry.decision(False, str(failure))
            continue
        if holds and entry.rule.effect == "deny":
            return entry.decision(False)
        if holds:
            allowed = allowed or entry.decision(True)
    return failed or allowed or Decision(False, NOTHING_MATCHES, None)


def _entry(policy: Policy, number: int, rule: Rule) -> _Entry:
    try:
        action, resource = Pattern(rule.action), Pattern(rule.resource)
        compiled = None if rule.condition is None else condition(rule.condition)
    except ValueError as error:
        return _Entry(policy, number, rule, _EVERYTHING, _EVERYTHING, None, str(error))
    return _Entry(policy, number, rule, action, resource, compiled)


def _remember(known: dict[K, V], name: K, value: V) -> None:
    if len(known) >= MOST_KNOWN:
        known.clear()
    known[name] = value


_EVERYTHING = Pattern("*")
