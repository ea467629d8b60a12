"""What single messages take and refuse, beyond their types."""

from typing import Any

import msgspec
import pytest
from hypothesis import given

from protocol.messages.auth import Login, Register
from protocol.messages.connection import Goodbye, Hello, KickedOut
from protocol.messages.waiting import Cancelled, Place, Stream, TicketStatus
from tests.protocol.strategies import passwords

ACCOUNT = {"username": "mina", "password": "correct horse", "email": "mina@example.com", "nickname": "Mina"}
HANGUL_24 = "가나다라마바사아자차카타파하" + "가나다라마바사아자차"
"""24 syllables, 72 bytes."""


def register(**fields: object) -> Register:
    return msgspec.convert(ACCOUNT | fields, Register)


def refusal(data_type: type, fields: dict[str, Any]) -> str:
    """What is said when these fields are refused."""
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(fields, data_type)
    return str(refused.value)


@pytest.mark.parametrize("password", ["a" * 8, "a" * 72, HANGUL_24, "🎮🎮", "🎮" * 18, "가나다", "\x00" * 8])
def test_a_password_of_8_to_72_bytes_is_taken(password: str) -> None:
    assert register(password=password).password == password


@pytest.mark.parametrize(
    ("password", "length"),
    [("", 0), ("a" * 7, 7), ("가나", 6), ("a" * 73, 73), (HANGUL_24 + "가", 75), (HANGUL_24 + "a", 73)],
)
def test_a_shorter_or_longer_password_is_refused(password: str, length: int) -> None:
    said = refusal(Register, ACCOUNT | {"password": password})
    assert "`password`" in said
    assert f"this one has {length}" in said


@given(passwords)
def test_what_a_password_says_is_not_repeated(password: str) -> None:
    said = refusal(Register, ACCOUNT | {"password": password[:1] * 73})
    assert said == "`password` must have 8 to 72 bytes of UTF-8, this one has " + said.rpartition(" ")[2]


def test_lengths_of_the_examples() -> None:
    assert (len(HANGUL_24), len(HANGUL_24.encode())) == (24, 72)


@pytest.mark.parametrize("username", ["abc", "a" * 32, "Mina_01", "a.b-c", "...", "000"])
def test_a_username_is_taken(username: str) -> None:
    assert register(username=username).username == username


@pytest.mark.parametrize(
    "username",
    ["", "ab", "a" * 33, "mina\n", "mina\r\n", "\nmina", "mi na", "민아", "mína", "mina\x00", "ｍｉｎａ",
     "m\u0456na", "ınan", "K\u212aK", "mina/..", "mina\u200b", "١٢٣", "a@b.c"],
)  # fmt: skip
def test_another_username_is_refused(username: str) -> None:
    for data_type in (Register, Login):
        assert "`$.username`" in refusal(data_type, ACCOUNT | {"username": username})


@pytest.mark.parametrize("nickname", ["민", "a" * 32, "🎮" * 32, "with space", "가나다라" * 8])
def test_a_nickname_of_1_to_32_characters_is_taken(nickname: str) -> None:
    assert register(nickname=nickname).nickname == nickname


@pytest.mark.parametrize("nickname", ["", "a" * 33, "two\nlines", "end\n", "\x00", "\x1b[31m", "\x7f"])
def test_another_nickname_is_refused(nickname: str) -> None:
    assert "`$.nickname`" in refusal(Register, ACCOUNT | {"nickname": nickname})


@pytest.mark.parametrize("email", ["a@b", "first.last+tag@example.co.kr", "민아@예시.한국", "a" * 252 + "@b"])
def test_an_email_address_is_taken(email: str) -> None:
    assert register(email=email).email == email


@pytest.mark.parametrize(
    "email", ["", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "a\x00@b", "a" * 253 + "@b"]
)
def test_another_email_address_is_refused(email: str) -> None:
    assert "`$.email`" in refusal(Register, ACCOUNT | {"email": email})


def test_a_login_is_by_password_or_by_token() -> None:
    by_password = {"username": "mina", "password": "x"}
    assert msgspec.convert(by_password, Login).password == "x"
    assert msgspec.convert({"refreshToken": "t"}, Login).refresh_token == "t"
    assert msgspec.convert({"refreshToken": "t", "username": None, "password": None}, Login).username is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "missing required field `username` (or `refreshToken`)"),
        ({"password": "x"}, "missing required field `username`"),
        ({"username": "mina"}, "missing required field `password`"),
        ({"username": None, "password": None}, "missing required field `username`"),
        ({"refreshToken": "t", "username": "mina"}, "`refreshToken` goes without"),
        ({"refreshToken": "t", "username": "mina", "password": "x"}, "`refreshToken` goes without"),
        ({"refreshToken": ""}, "`$.refreshToken`"),
        ({"refreshToken": "t" * 2049}, "`$.refreshToken`"),
        ({"username": "mina", "password": "a" * 73}, "`password` must have 0 to 72 bytes"),
        ({"username": "mina", "password": HANGUL_24 + "가"}, "this one has 75"),
        ({"refreshToken": "t", "clientFingerprint": "f" * 257}, "`$.clientFingerprint`"),
    ],
)
def test_another_login_is_refused(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(Login, fields)


@pytest.mark.parametrize(
    "fields",
    [{"protocol": True, "client": "x"}, {"protocol": 1.5, "client": "x"}, {"protocol": "1", "client": "x"}],
)
def test_a_version_is_an_integer(fields: dict[str, Any]) -> None:
    assert "`$.protocol`" in refusal(Hello, fields)


def test_another_version_is_understood_so_that_it_can_be_answered() -> None:
    assert msgspec.convert({"protocol": 2, "client": "x", "newThing": 1}, Hello).protocol == 2


@pytest.mark.parametrize("tid", ["", "t" * 129])
def test_a_ticket_id_has_1_to_128_characters(tid: str) -> None:
    assert "`$.tid`" in refusal(Stream, {"tid": tid, "clientId": "c"})


def test_an_estimate_is_null_while_it_is_unknown() -> None:
    place = Place(status=TicketStatus.PENDING, position=3, total_waiting=9, estimated_wait_sec=None)
    assert msgspec.to_builtins(place) == {
        "status": "PENDING",
        "position": 3,
        "totalWaiting": 9,
        "estimatedWaitSec": None,
    }


def test_what_always_says_the_same_says_it_on_the_wire() -> None:
    assert msgspec.to_builtins(Cancelled()) == {"status": "CANCELLED"}
    assert msgspec.to_builtins(KickedOut(reason="TAKEN_OVER")) == {
        "reason": "TAKEN_OVER",
        "message": "다른 곳에서 로그인되어 연결이 종료되었습니다.",
    }


def test_a_wait_that_is_not_asked_for_is_left_out() -> None:
    goodbye = Goodbye(code="IDLE", message="", reconnect=True)
    assert "retryAfterMs" not in msgspec.to_builtins(goodbye)
