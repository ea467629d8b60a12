"""Groups, policies and permissions (docs/operations.md, "Who may do what")."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from protocol.errors import FORBIDDEN
from protocol.messages.declaration import Message, Nothing, request

MAX_CONTEXT_DEPTH = 4
MAX_CONTEXT_VALUES = 64
MAX_CONTEXT_CHARACTERS = 1024
"""A decision costs what conditions look at: this bounds what a caller can have them look at."""

_NAME = r"^[^:*\x00-\x1f\x7f]+(:[^:*\x00-\x1f\x7f]+)*\Z"

Action = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=_NAME,
        description="segments parted by colons, such as `queue:join`; 1 to 64 characters,"
        " none of them `*` or a control character",
    ),
]
Resource = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=_NAME,
        description="segments parted by colons, such as `queue:login`; 1 to 256 characters,"
        " none of them `*` or a control character",
    ),
]


def check_context(context: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, for a context that is deeper, larger or longer than is taken."""
    values = characters = 0
    left: list[tuple[int, Mapping[str, Any] | list[Any]]] = [(1, context)]
    while left:
        depth, holder = left.pop()
        if depth > MAX_CONTEXT_DEPTH:
            raise ValueError(f"`context` is nested deeper than {MAX_CONTEXT_DEPTH}")
        values += len(holder)
        if values > MAX_CONTEXT_VALUES:
            raise ValueError(f"`context` has more than {MAX_CONTEXT_VALUES} values")
        inner = [*holder, *holder.values()] if isinstance(holder, Mapping) else holder
        for value in inner:
            if isinstance(value, str | bytes):
                characters += len(value)
            elif isinstance(value, Mapping | list):
                left.append((depth + 1, value))
    if characters > MAX_CONTEXT_CHARACTERS:
        raise ValueError(f"`context` has more than {MAX_CONTEXT_CHARACTERS:,} characters of text")


class Group(Message, frozen=True):
    """A group, how many belong to it and what belonging to it permits."""

    group_id: str
    group_name: str
    description: str
    member_count: int
    permissions: list[str]


class Groups(Message, frozen=True):
    """The groups to which the user belongs."""

    groups: list[Group]


@request("iam.groups", owner="login", reply=Groups, errors=(FORBIDDEN,))
class ListGroups(Nothing, frozen=True):
    """Ask which groups the user belongs to."""


class PolicyRule(Message, frozen=True):
    """What a policy says of an action on a resource; `condition` is CEL, null where there is none."""

    action: str
    resource: str
    condition: str | None
    effect: str


class Policy(Message, frozen=True):
    """A policy."""

    policy_id: str
    policy_name: str
    description: str
    rules: list[PolicyRule]


class Policies(Message, frozen=True):
    """All policies."""

    policies: list[Policy]


@request("iam.policies", owner="login", reply=Policies, errors=(FORBIDDEN,))
class ListPolicies(Nothing, frozen=True):
    """Ask which policies there are."""


class Permission(Message, frozen=True):
    """Whether it is allowed, why, and by which policy; `policyMatched` is null where none has a word."""

    allowed: bool
    reason: str
    policy_matched: str | None


@request("iam.check_permission", owner="login", reply=Permission)
class CheckPermission(Message, frozen=True):
    """Ask whether the user may do something. `context` is what conditions may ask the caller about."""

    action: Action
    resource: Resource
    context: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.context is not None:
            check_context(self.context)
