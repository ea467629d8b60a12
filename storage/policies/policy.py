"""What a policy is, and how one that somebody wrote is checked: with the place of every fault."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from storage.policies.conditions import ConditionFault, condition
from storage.policies.matching import Pattern

MOST_RULES = 50
MOST_RULES_IN_ALL = 500
MOST_CONDITION_CHARACTERS_IN_ALL = 65_536
"""Of all policies together: a decision looks at each of them."""

ActionPattern = Annotated[str, Meta(min_length=1, max_length=64)]
ResourcePattern = Annotated[str, Meta(min_length=1, max_length=256)]
PolicyId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]


class PolicyFault(ValueError):
    """A policy that cannot be used; the text says what is wrong, and where."""


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """To do `action` on `resource` is allowed, or denied, where the condition holds; without one always."""

    action: ActionPattern
    resource: ResourcePattern
    condition: str | None = None
    effect: Literal["allow", "deny"] = "allow"


class Policy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Rules with a name. Which policy a rule stands in makes no difference to what it does."""

    policy_id: PolicyId
    policy_name: Annotated[str, Meta(min_length=1, max_length=64)]
    description: Annotated[str, Meta(max_length=255)] = ""
    rules: Annotated[tuple[Rule, ...], Meta(min_length=1, max_length=MOST_RULES)]


def parse(text: str) -> Policy:
    """The policy that a JSON text says. Raises PolicyFault."""
    try:
        said: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise PolicyFault(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise PolicyFault("it is nested too deep") from None
    return _convert(said)


def check(policy: Policy) -> None:
    """See that each rule can be used. Raises PolicyFault, naming the rule, the field and the place in it."""
    for number, rule in enumerate(policy.rules, start=1):
        for field, pattern in (("action", rule.action), ("resource", rule.resource)):
            try:
                Pattern(pattern)
            except ValueError as error:
                raise PolicyFault(f"rule {number}, {field}: {error}") from None
        try:
            if rule.condition is not None:
                condition(rule.condition)
        except ConditionFault as error:
            raise PolicyFault(f"rule {number}, condition, {error}") from None


def rules_to_json(rules: tuple[Rule, ...]) -> str:
    """Rules as the cache's field `rules` holds them: in JSON."""
    return msgspec.json.encode(rules).decode()


def rules_from_json(text: str) -> tuple[Rule, ...]:
    """The reverse. Raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=tuple[Rule, ...])


def _convert(said: Mapping[str, Any]) -> Policy:
    try:
        policy = msgspec.convert(said, Policy)
    except msgspec.ValidationError as error:
        raise PolicyFault(str(error)) from None
    for name, text in (("policyName", policy.policy_name), ("description", policy.description)):
        if not text.isprintable():
            raise PolicyFault(f"`{name}` contains a character that does not print")
    check(policy)
    return policy
