"""Conditions of rules: CEL, compiled once and evaluated at a cost that is bounded.

The language is https://github.com/google/cel-spec without what makes a short text long work: no loops
(`all`, `exists`, `exists_one`, `map`, `filter`), no regular expressions, and no time zones by name, which
would be read from files. What is left costs no more than the length of the text times the size of what it
looks at, and both are bounded: MAX_CHARACTERS here, the caller's context in `protocol/messages/iam.py`. The
library bounds the depth to 32 and refuses, at the place of the fault, what does not parse or type-check.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

MAX_CHARACTERS = 1024

MOST_COMPILED = 2048
"""Compiled conditions that a process keeps, so that a change of one policy does not compile all again."""

LONGEST_CAUSE_CHARACTERS = 200

_LOOPS = ("all", "exists", "exists_one", "map", "filter")
_WITH_ZONE = {
    "getDate": "timestamp_to_day_of_month_1_based_with_tz",
    "getDayOfMonth": "timestamp_to_day_of_month_with_tz",
    "getDayOfWeek": "timestamp_to_day_of_week_with_tz",
    "getDayOfYear": "timestamp_to_day_of_year_with_tz",
    "getFullYear": "timestamp_to_year_with_tz",
    "getHours": "timestamp_to_hours_with_tz",
    "getMilliseconds": "timestamp_to_milliseconds_with_tz",
    "getMinutes": "timestamp_to_minutes_with_tz",
    "getMonth": "timestamp_to_month_with_tz",
    "getSeconds": "timestamp_to_seconds_tz",
}
"""The overloads that take a time zone, by their function (cel-spec, "Standard Definitions")."""

_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_LOOP = re.compile(rf"\.\s*({'|'.join(_LOOPS)})\s*\(")
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


class ConditionFault(ValueError):
    """A condition that cannot be used: what is wrong, and where, both counted from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


class ConditionFailed(Exception):
    """A condition that could not be evaluated; the text says why."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the user who asks: what conditions call `user`.

    `role` is the account's own, `roles` are those that policies let it bear.
    """

    user_id: str
    role: str
    roles: Sequence[str]
    groups: Sequence[str]
    permissions: Sequence[str]


class Circumstances:
    """What conditions may look at: the user, what they want to do, and what the caller says of it."""

    def __init__(self, facts: Facts, action: str, resource: str, context: Mapping[str, Any]) -> None:
        self.activation = _LANGUAGE.Activation(
            {
                "user.id": facts.user_id,
                "user.role": facts.role,
                "user.roles": list(facts.roles),
                "user.groups": list(facts.groups),
                "user.permissions": list(facts.permissions),
                "action": action,
                "resource": resource,
                "context": dict(context),
            }
        )


class Condition:
    """A condition that parses and type-checks."""

    __slots__ = ("_expression", "is_personal")

    def __init__(self, text: str) -> None:
        """Raises ConditionFault."""
        if len(text) > MAX_CHARACTERS:
            raise ConditionFault(f"it has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken")
        try:
            self._expression = _LANGUAGE.compile(text)
        except RuntimeError as error:
            raise _fault(text, str(error)) from None
        self.is_personal = _needs_user_id(text)
        """Whether two users with the same role and groups may get different answers."""
        said = self._expression.return_type().name()
        if said != "BOOL":
            raise ConditionFault(f"it says {said.lower()}, where it must say true or false")

    def holds(self, circumstances: Circumstances) -> bool:
        """What it says. Raises ConditionFailed."""
        try:
            value = self._expression.eval(circumstances.activation)
            said = value.plain_value() if value.type().name() == "BOOL" else None
            failure = "" if said is not None else str(value.plain_value())
        except Exception as error:  # whatever the library meets in what a caller sent: the answer is no
            said, failure = None, str(error)
        if said is None:
            cause = _STATUS.sub("", failure)
            raise ConditionFailed(cause[:LONGEST_CAUSE_CHARACTERS])
        return said is True


@lru_cache(MOST_COMPILED)
def condition(text: str) -> Condition:
    """The condition that `text` says, compiled at its first use. Raises ConditionFault."""
    return Condition(text)


def _needs_user_id(text: str) -> bool:
    try:
        _LANGUAGE_FOR_ANYBODY.compile(text)
    except RuntimeError:
        return True
    return False


def _language(*, knows_user_id: bool) -> cel.Env:
    config = cel.NewEnvConfigFromYaml(
        "stdlib:\n"
        f"  exclude_macros: [{', '.join(_LOOPS)}]\n"
        "  exclude_functions:\n"
        "    - name: matches\n"
        + "".join(
            f"    - name: {name}\n      overloads: [{{id: {overload}}}]\n"
            for name, overload in _WITH_ZONE.items()
        )
    )
    texts = cel.Type.List(cel.Type.STRING)
    variables = {
        **({"user.id": cel.Type.STRING} if knows_user_id else {}),
        "user.role": cel.Type.STRING,
        "user.roles": texts,
        "user.groups": texts,
        "user.permissions": texts,
        "action": cel.Type.STRING,
        "resource": cel.Type.STRING,
        "context": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    }
    return cel.NewEnv(config=config, variables=variables)


def _fault(text: str, said: str) -> ConditionFault:
    place = _PLACE.search(said)
    if place is None:
        return ConditionFault(_STATUS.sub("", said))
    line, column, message = place.groups()
    message = _STATUS.sub("", message)
    if _LOOP.search(text):
        message += " (a condition has no loops; ask a list with `in`)"
    return ConditionFault(message.replace(" (in container '')", ""), int(line), int(column))


_LANGUAGE = _language(knows_user_id=True)
_LANGUAGE_FOR_ANYBODY = _language(knows_user_id=False)
