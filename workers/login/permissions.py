"""What users may do: `iam.groups`, `iam.policies`, `iam.check_permission`, and what sessions bear."""

from typing import Any

from protocol.errors import FORBIDDEN, NOT_AUTHENTICATED, RequestError
from protocol.messages import ADMIN, GAME_SERVER
from protocol.messages.iam import (
    CheckPermission,
    Group,
    Groups,
    ListGroups,
    ListPolicies,
    Permission,
    Policies,
    Policy,
    PolicyRule,
)
from storage.permissions import entry
from storage.policies import Question
from storage.sessions import Rights
from storage.users import User
from workers.login.room import LoginRoom, handlers
from workers.requests import Call

READ_GROUPS = Question("iam:read", "iam:groups", {})
READ_POLICIES = Question("iam:read", "iam:policies", {})

PRIVILEGED = (ADMIN, GAME_SERVER)
"""Roles that a policy may give to who has another one; bearing one of them is written down."""


@handlers.handles(CheckPermission)
async def check_permission(room: LoginRoom, call: Call[CheckPermission]) -> Permission:
    """Say whether the sender may do it, and why."""
    question = Question(call.data.action, call.data.resource, call.data.context or {})
    decision = await room.permissions.check(_sender(call), question)
    return Permission(
        allowed=decision.allowed, reason=decision.reason, policy_matched=decision.policy_matched
    )


@handlers.handles(ListGroups)
async def list_groups(room: LoginRoom, call: Call[ListGroups]) -> Groups:
    """Say which groups the sender belongs to."""
    user_id = _sender(call)
    await _need(room, user_id, READ_GROUPS)
    rulebook = await room.policies.current()
    mine = await room.groups.of(user_id)
    counts = await room.group_catalogue.member_counts(mine)
    found = [
        Group(
            group_id=group_id,
            group_name=group.group_name,
            description=group.description,
            member_count=counts[group_id],
            permissions=list(group.permissions),
        )
        for group_id, group in rulebook.groups.items()
        if group_id in counts
    ]
    return Groups(groups=found)


@handlers.handles(ListPolicies)
async def list_policies(room: LoginRoom, call: Call[ListPolicies]) -> Policies:
    """Say which policies there are."""
    await _need(room, _sender(call), READ_POLICIES)
    rulebook = await room.policies.current()
    found = [
        Policy(
            policy_id=policy.policy_id,
            policy_name=policy.policy_name,
            description=policy.description,
            rules=[
                PolicyRule(
                    action=rule.action, resource=rule.resource, condition=rule.condition, effect=rule.effect
                )
                for rule in policy.rules
            ],
        )
        for policy in rulebook.policies
    ]
    return Policies(policies=found)


async def rights(room: LoginRoom, user: User) -> Rights:
    """What the user's session may do: the roles that policies let it bear, the permissions of its groups."""
    rulebook = await room.policies.recent()
    facts = rulebook.facts(user.user_id, user.role, await room.groups.of(user.user_id))
    roles = []
    for role in dict.fromkeys((user.role, *PRIVILEGED)):
        question = Question("role:bear", f"role:{role}", {})
        decision = rulebook.decide(facts, question)
        if decision.allowed:
            roles.append(role)
            if role in PRIVILEGED:
                await room.audit.append([entry(user.user_id, question, decision)])
    return Rights(role=",".join(roles), permissions=",".join(facts.permissions))


def _sender(call: Call[Any]) -> str:
    if call.envelope.user_id is None:
        raise RequestError(NOT_AUTHENTICATED)
    return call.envelope.user_id


async def _need(room: LoginRoom, user_id: str, question: Question) -> None:
    decision = await room.permissions.check(user_id, question)
    if not decision.allowed:
        raise RequestError(FORBIDDEN, decision.reason)
