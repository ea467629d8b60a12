"""What users may do: `iam.groups`, `iam.policies`, `iam.check_permission`, and what sessions bear."""

from protocol.errors import FORBIDDEN, RequestError
from protocol.messages import TRUSTED
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
from storage.audit import WhenFull
from storage.permissions import entry
from storage.policies import Question, bearing
from storage.sessions import Rights
from storage.users import User
from workers.login.room import LoginRoom, handlers
from workers.requests import Call, sender

READ_GROUPS = Question("iam:read", "iam:groups", {})
READ_POLICIES = Question("iam:read", "iam:policies", {})


@handlers.handles(CheckPermission)
async def check_permission(room: LoginRoom, call: Call[CheckPermission]) -> Permission:
    """Say whether the sender may do it, and why."""
    question = Question(call.data.action, call.data.resource, call.data.context or {})
    decision = await room.permissions.check(sender(call), question)
    return Permission(
        allowed=decision.allowed, reason=decision.reason, policy_matched=decision.policy_matched
    )


@handlers.handles(ListGroups)
async def list_groups(room: LoginRoom, call: Call[ListGroups]) -> Groups:
    """Say which groups the sender belongs to."""
    user_id = sender(call)
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
    await _need(room, sender(call), READ_POLICIES)
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
    """What the user's session may do: the roles that policies let it bear, the permissions of its groups.

    Bearing a role of trust is written down.
    """
    rulebook = await room.policies.recent()
    facts = rulebook.facts(user.user_id, user.role, await room.groups.of(user.user_id))
    if not TRUSTED.isdisjoint(facts.roles):
        borne = rulebook.bearing(facts)
        trusted = [entry(user.user_id, bearing(role), borne[role]) for role in facts.roles if role in TRUSTED]
        await room.audit.append(trusted, WhenFull.COUNT)
    return Rights(role=",".join(facts.roles), permissions=",".join(facts.permissions))


async def _need(room: LoginRoom, user_id: str, question: Question) -> None:
    decision = await room.permissions.check(user_id, question)
    if not decision.allowed:
        raise RequestError(FORBIDDEN, decision.reason)
