"""Policies for tests, and the defaults that lobbyd ships."""

from collections.abc import Mapping
from typing import Any

import msgspec

from storage.migrations.versions import v0006_policies, v0008_gates, v0009_raises
from storage.policies import Policy, Rule, Rulebook
from storage.policies.rulebook import GroupRecord

GROUPS = {
    "VIP_Users": GroupRecord("VIP Users", "", ("queue_priority", "game_early_access")),
    "Premium_Users": GroupRecord("Premium Users", "", ("queue_priority",)),
    "Testers": GroupRecord("Testers", "", ()),
}

DEFAULTS = [
    msgspec.convert(msgspec.to_builtins(_camel), Policy)
    for _camel in (
        {
            "policyId": policy["policy_id"],
            "policyName": policy["policy_name"],
            "description": policy["description"],
            "rules": policy["rules"],
        }
        for policy in (*v0006_policies._DEFAULTS, v0008_gates._DEFAULT, v0009_raises._DEFAULT)
    )
]


def policy(policy_id: str, *rules: Rule | Mapping[str, Any]) -> Policy:
    """A policy of these rules."""
    made = tuple(rule if isinstance(rule, Rule) else msgspec.convert(rule, Rule) for rule in rules)
    return Policy(policy_id=policy_id, policy_name=policy_id, rules=made)


def allow(action: str = "*", resource: str = "*", condition: str | None = None) -> Rule:
    """A rule that allows."""
    return Rule(action=action, resource=resource, condition=condition)


def deny(action: str = "*", resource: str = "*", condition: str | None = None) -> Rule:
    """A rule that denies."""
    return Rule(action=action, resource=resource, condition=condition, effect="deny")


def rulebook(*policies: Policy) -> Rulebook:
    """A rulebook of these policies."""
    return Rulebook("v1", policies, GROUPS)
