"""A fault in a request's data is told in words that name the field."""

import pytest

from protocol.errors import RequestError
from protocol.messages.auth import Login, Register
from protocol.messages.conversion import convert
from protocol.messages.waiting import Stream

WHOLE = {"username": "bora", "password": "correct horse", "email": "b@example.com", "nickname": "보라"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"username": "a b"}, "`username`: expected 3 to 32 of"),
        ({"username": 7}, "`username`: Expected `str`, got `int`"),
        ({"email": "nobody"}, "`email`: expected an email address"),
        ({"nickname": ""}, "`nickname`: expected 1 to 32 characters"),
        ({"password": "x" * 73}, "`password` must have 8 to 72 bytes of UTF-8, this one has 73"),
        ({"password": "가" * 25}, "this one has 75"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_expected(change: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        convert({**WHOLE, **change}, Register)
    assert refused.value.kind.code == "INVALID_REQUEST"
    assert said in refused.value.message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RequestError, match="`clientId`"):
        convert({"tid": "tid_x"}, Stream)
    with pytest.raises(RequestError, match="`username`"):
        convert({"password": "correct horse"}, Login)


def test_what_is_right_is_converted() -> None:
    assert convert({**WHOLE, "unknown": 1}, Register) == Register(**WHOLE)
