"""Conditions: what is refused when it is written, what fails when it is asked, and what none can cost."""

from typing import Any

import pytest

from storage.policies.conditions import (
    MAX_CHARACTERS,
    Circumstances,
    Condition,
    ConditionFailed,
    ConditionFault,
    Facts,
)

ANNA = Facts("anna", "VIP", ["VIP"], ["Testers", "VIP_Users"], ["queue_priority"])


def holds(condition: str, **context: Any) -> bool:
    return Condition(condition).holds(Circumstances(ANNA, "queue:join", "queue:login", context))


@pytest.mark.parametrize(
    "text",
    [
        'user.role == "VIP"',
        'user.id == "anna" && action == "queue:join" && resource == "queue:login"',
        '"VIP_Users" in user.groups && "queue_priority" in user.permissions',
        'user.role in ["ADMIN", "VIP"]',
        "context.level >= 10 && context.tags[0] == 'new' && context.guild.rank < 3",
        'has(context.level) || user.role == "ADMIN"',
        "!has(context.nothing)",
        'resource.startsWith("queue:") && size(user.groups) == 2',
        'user.role == "VIP" || context.nothing',  # what decides is known without it
        "context.level == 12.0 ? true : false",
    ],
)
def test_what_is_true_holds(text: str) -> None:
    assert holds(text, level=12, tags=["new"], guild={"rank": 1})


def test_what_is_false_does_not() -> None:
    assert not holds('user.role == "ADMIN"')


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("user.role ==", 1, 13),
        ("", 1, 1),
        ('user.rolle == "VIP"', 1, 5),
        ("user.role == 5", 1, 11),
        ('user.role == "VIP" &&\n  5 in user.groups', 2, 5),
        ("true &&\n\n   nobody", 3, 4),
        ("user.role", 1, 1),  # says a text
        ("context.vip", 1, 1),  # could say anything
        ("(" * 40 + "true" + ")" * 40, 1, 1),
        ("true" + " " * MAX_CHARACTERS, 1, 1),
        ('"보라" == user.id && 보라', 1, 20),
    ],
)
def test_a_fault_is_refused_with_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(ConditionFault) as fault:
        Condition(text)
    assert (fault.value.line, fault.value.column) == (line, column)
    assert str(fault.value).startswith(f"line {line}, column {column}: ")


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2].all(a, [1, 2].all(b, [1, 2].all(c, a + b + c > 0)))",
        'user.groups.exists(g, g == "VIP_Users")',
        "[1].exists_one(a, a == 1)",
        "[1].map(a, a) == [1]",
        "[1].filter(a, a > 0) == [1]",
        'user.id.matches("(a+)+$")',
        'matches(user.id, "(a+)+$")',
    ],
)
def test_what_would_make_a_short_text_long_work_is_no_part_of_the_language(text: str) -> None:
    with pytest.raises(ConditionFault, match="undeclared reference"):
        Condition(text)


def test_that_there_are_no_loops_is_said() -> None:
    with pytest.raises(ConditionFault, match="no loops; ask a list with `in`"):
        Condition('user.groups.exists(g, g == "VIP_Users")')


@pytest.mark.parametrize(
    "name",
    [
        *("Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "FullYear", "Month"),
        *("Hours", "Minutes", "Seconds", "Milliseconds"),
    ],
)
def test_no_condition_reads_files_of_time_zones(name: str) -> None:
    moment = 'timestamp("2024-01-01T00:00:00Z")'
    assert Condition(f"{moment}.get{name}() >= 0").holds(Circumstances(ANNA, "a", "b", {}))
    with pytest.raises(ConditionFault):
        Condition(f'{moment}.get{name}("../../dev/zero") >= 0')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("context.nothing > 1", "nothing"),
        ('context.level > "1"', "No matching overload"),
        ("context.level / 0 == 1", "divide by zero"),
        ("context.level + 9223372036854775807 > 0", "overflow"),
        ('user.groups[9] == "x"', "Index"),
        ("int(context.text) == 1", "convert"),
        ("context.level && true", "overload"),
    ],
)
def test_what_cannot_be_evaluated_fails_and_says_so(text: str, why: str) -> None:
    with pytest.raises(ConditionFailed, match=why):
        holds(text, level=1, text="x")


def test_a_context_that_the_language_has_no_value_for_fails_what_looks_at_it() -> None:
    assert holds("true", huge=-(2**70))
    with pytest.raises(ConditionFailed, match="out of range"):
        holds("context.level == 1", level=1, huge=-(2**70))


def test_the_context_does_not_become_the_user() -> None:
    assert not holds('user.role == "ADMIN"', **{"user": {"role": "ADMIN"}, "user.role": "ADMIN"})
