"""What may be asked about permissions: names that part cleanly, and a context that costs little."""

from typing import Any

import pytest

from protocol.errors import RequestError
from protocol.messages.conversion import convert
from protocol.messages.iam import CheckPermission


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"action": "", "resource": "b"}, "action"),
        ({"action": "a:*", "resource": "b"}, "action"),
        ({"action": "a::b", "resource": "b"}, "action"),
        ({"action": "a\nb", "resource": "b"}, "action"),
        ({"action": "a" * 65, "resource": "b"}, "action"),
        ({"action": "a", "resource": "b\x00"}, "resource"),
        ({"action": "a", "resource": "b" * 257}, "resource"),
        ({"action": "a", "resource": "b", "context": {"a": {"b": {"c": {"d": {"e": 1}}}}}}, "context"),
        ({"action": "a", "resource": "b", "context": {"a": [0] * 65}}, "context"),
        ({"action": "a", "resource": "b", "context": {"a": "x" * 1025}}, "context"),
        ({"action": "a", "resource": "b", "context": {"x" * 1025: 1}}, "context"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_the_name_of_the_field(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match=f"`{field}`"):
        convert(asked, CheckPermission)


@pytest.mark.parametrize(
    "asked",
    [
        {"action": "queue:join", "resource": "queue:login"},
        {"action": "a", "resource": "{b}|c d:보라", "context": {}},
        {"action": "a" * 64, "resource": "b" * 256, "context": {"a": [0] * 63}},
        {"action": "a", "resource": "b", "context": {"a": {"b": {"c": {"d": None}}}}},
        {"action": "a", "resource": "b", "context": {"x": "y" * 1023}},
    ],
)
def test_what_can_be_asked_is_taken(asked: dict[str, Any]) -> None:
    assert convert(asked, CheckPermission).action == asked["action"]
