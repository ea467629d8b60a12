"""Tokens: made from facts, the same for the same facts, and nothing else is taken for one."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given, strategies as st

from runtime.secrets import Purpose, Secrets
from storage.sessions import NextToken, Rights
from workers.login.tokens import (
    AUDIENCE,
    ISSUER,
    SEPARATOR,
    Access,
    BadToken,
    Tokens,
    names,
    new_family,
    token_hash,
)

MASTER = b"a master secret of tests and tests alone"
TTL_S = 900
TOKENS = Tokens(Secrets(MASTER), TTL_S)
KEY = Secrets(MASTER).sign(Purpose.ACCESS_TOKEN, b"access-token signing key")
RIGHTS = Rights("NORMAL", "")

user_ids = st.from_regex(r"[a-z0-9_.-]{3,32}", fullmatch=True)


def now_s() -> int:
    return int(time.time())


def access(issued_s: int = 0, **changes: Any) -> str:
    """An access token issued so many seconds from now, with the claims changed or (None) left out."""
    at_s = now_s() + issued_s
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "sid": "family", "jti": "family.1",
        "iat": at_s, "exp": at_s + TTL_S, "roles": ["NORMAL"], "permissions": [],
    } | changes  # fmt: skip
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, KEY, "HS256")


def encoded(part: object) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def refuses(token: str) -> bool:
    try:
        TOKENS.read_access(token)
    except BadToken:
        return True
    return False


# Access tokens.


@given(user_ids, st.integers(1, 10**9))
def test_an_access_token_says_what_it_was_made_from(user_id: str, number: int) -> None:
    issued_ms = now_s() * 1000 + 999
    token = NextToken(new_family(), number, "")
    made = TOKENS.access(user_id, token, Rights("ADMIN,GAME_SERVER", "a.b,c"), issued_ms)
    assert made == TOKENS.access(
        user_id, token, Rights("ADMIN,GAME_SERVER", "a.b,c"), issued_ms // 1000 * 1000
    )
    assert TOKENS.read_access(made) == Access(
        user_id, token.family, ("ADMIN", "GAME_SERVER"), ("a.b", "c"), issued_ms // 1000 + TTL_S
    )


def test_an_access_token_looks_as_expected_here() -> None:
    made = TOKENS.access("ada", NextToken("family", 1, ""), RIGHTS, now_s() * 1000)
    assert jwt.decode(made, KEY, ["HS256"], audience=AUDIENCE) == jwt.decode(
        access(), KEY, ["HS256"], audience=AUDIENCE
    )
    assert not refuses(access())


@pytest.mark.parametrize(
    ("issued_s", "is_good"),
    [(5, True), (60, False), (-TTL_S - 5, True), (-TTL_S - 60, False), (-TTL_S + 60, True)],
)
def test_clocks_may_be_a_little_apart(issued_s: int, is_good: bool) -> None:
    assert refuses(access(issued_s)) is not is_good


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "roles", "permissions"])
def test_no_claim_may_be_missing(name: str) -> None:
    assert refuses(access(0, **dict.fromkeys([name])))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"}, {"aud": []}, {"aud": 1}, {"iss": "another"},
        {"exp": "tomorrow"}, {"exp": 0}, {"exp": -1}, {"iat": "today"}, {"nbf": 4_102_444_800},
        {"roles": 7}, {"permissions": True}, {"sub": 7},
    ],
    ids=str,
)  # fmt: skip
def test_no_claim_may_be_another(changes: dict[str, Any]) -> None:
    assert refuses(access(**changes))


def test_a_token_signed_with_another_key_is_refused() -> None:
    claims = jwt.decode(access(), KEY, ["HS256"], audience=AUDIENCE)
    other = Secrets(MASTER + b"!").sign(Purpose.ACCESS_TOKEN, b"access-token signing key")
    same_master = Secrets(MASTER).sign(Purpose.REFRESH_TOKEN, b"access-token signing key")
    for key in (other, same_master, MASTER, b"x" * 32):
        assert refuses(jwt.encode(claims, key, "HS256"))
    assert not refuses(jwt.encode(claims, KEY, "HS256"))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS384", "HS512", "RS256", None, [], {}, 7]
)
def test_a_token_of_another_algorithm_is_refused(algorithm: object) -> None:
    claims = jwt.decode(access(), KEY, ["HS256"], audience=AUDIENCE)
    header = {"typ": "JWT", "alg": algorithm}
    body = f"{encoded(header)}.{encoded(claims)}"
    for signature in ("", encoded(b"x" * 32), access().rpartition(".")[2]):
        assert refuses(f"{body}.{signature}")


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_good_signature_of_another_algorithm_is_refused(algorithm: str) -> None:
    claims = jwt.decode(access(), KEY, ["HS256"], audience=AUDIENCE)
    assert refuses(jwt.encode(claims, KEY, algorithm))


def test_no_part_of_a_token_can_be_changed() -> None:
    header, claims, signature = access().split(".")
    richer = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"roles": ["ADMIN"]}
    assert refuses(f"{header}.{encoded(richer)}.{signature}")
    assert refuses(f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'x': 1})}.{claims}.{signature}")
    assert refuses(f"{header}.{claims}.{signature[:-4]}AAAA")
    assert refuses(f"{header}.{claims}.")
    assert refuses(f"{header}.{claims}")
    assert refuses(f"{header}.{claims}.{signature}.{signature}")


@pytest.mark.parametrize("nested", [b"[" * 5000, b'{"a":' * 5000, b"9" * 5000], ids=["list", "map", "number"])
def test_a_token_that_is_hard_to_read_is_refused(nested: bytes) -> None:
    _, claims, signature = access().split(".")
    assert refuses(f"{encoded(nested)}.{claims}.{signature}")
    header = encoded(b'{"alg":"HS256","x":' + nested + b"}")
    assert refuses(f"{header}.{claims}.{signature}")


@given(st.text() | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
def test_arbitrary_text_is_no_access_token(token: str) -> None:
    assert refuses(token)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
headers = st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "zip"]), json_values)


@given(headers, json_values)
def test_arbitrary_headers_and_claims_are_no_access_token(header: dict[str, Any], claims: object) -> None:
    assert refuses(f"{encoded({'alg': 'HS256'} | header)}.{encoded(claims)}.{encoded(b'x' * 32)}")


@given(json_values)
def test_arbitrary_claims_that_we_signed_are_no_access_token(claims: object) -> None:
    assert refuses(jwt.api_jws.encode(json.dumps(claims).encode(), KEY, "HS256"))


# Refresh tokens.


@given(user_ids, st.integers(1, 10**12))
def test_a_refresh_token_says_what_it_was_made_from(user_id: str, number: int) -> None:
    family = new_family()
    made = TOKENS.refresh(user_id, family, number)
    assert made == TOKENS.refresh(user_id, family, number)
    assert TOKENS.read_refresh(made) == (user_id, NextToken(family, number, token_hash(made)))
    assert TOKENS.next_refresh(user_id, family, number) == NextToken(family, number, token_hash(made))


@pytest.mark.parametrize("user_id", ["...", "---", "a.b-c_d", "rt", "-.-", "0.1", "a" * 32])
def test_a_user_ids_dots_and_dashes_part_nothing(user_id: str) -> None:
    family = "-_" * 11
    assert TOKENS.read_refresh(TOKENS.refresh(user_id, family, 2))[0] == user_id
    assert SEPARATOR not in new_family()


@pytest.mark.parametrize("position", range(len(TOKENS.refresh("a.b-c", "f" * 22, 12))))
def test_no_character_of_a_refresh_token_can_be_changed(position: int) -> None:
    token = TOKENS.refresh("a.b-c", "f" * 22, 12)
    for other in {"a", "1", SEPARATOR, ".", "-", "é"} - {token[position]}:
        with pytest.raises(BadToken):
            TOKENS.read_refresh(token[:position] + other + token[position + 1 :])


def test_parts_of_refresh_tokens_cannot_be_put_together() -> None:
    ours, theirs = TOKENS.refresh("eve", "family", 1), TOKENS.refresh("ada", "family", 1)
    body, seal = ours.rsplit(SEPARATOR, 1)
    swapped = f"{theirs.rsplit(SEPARATOR, 1)[0]}{SEPARATOR}{seal}"
    for token in (
        "", SEPARATOR, SEPARATOR * 4, body, seal, f"{SEPARATOR}{seal}", f"{body}{SEPARATOR}", swapped,
        ours[:-1], f"{ours}=", f"{ours}A", f" {ours}", f"{ours}\n", ours.upper(), f"{ours}{SEPARATOR}{seal}",
        f"rt~eve~family~2~{seal}", f"rt~eve~family~01~{seal}", f"rt~eve~fam~ily~1~{seal}",
        access(), f"{body}{SEPARATOR}{access()}",
    ):  # fmt: skip
        with pytest.raises(BadToken):
            TOKENS.read_refresh(token)


def test_a_refresh_token_of_another_master_secret_or_purpose_is_refused() -> None:
    with pytest.raises(BadToken):
        TOKENS.read_refresh(Tokens(Secrets(MASTER + b"!"), TTL_S).refresh("ada", "family", 1))
    body = "rt~ada~family~1"
    for purpose in set(Purpose) - {Purpose.REFRESH_TOKEN}:
        seal = encoded(Secrets(MASTER).sign(purpose, body.encode()))
        with pytest.raises(BadToken):
            TOKENS.read_refresh(f"{body}~{seal}")


@given(st.text())
def test_arbitrary_text_is_no_refresh_token(token: str) -> None:
    with pytest.raises(BadToken):
        TOKENS.read_refresh(token)


def test_what_is_stored_of_a_token_is_not_the_token() -> None:
    token = TOKENS.refresh("ada", "family", 1)
    assert token_hash(token) not in token
    assert len(token_hash(token)) == 64
    assert len({new_family() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("joined", "expected"), [("", []), ("NORMAL", ["NORMAL"]), ("A,B", ["A", "B"]), (",A,,B,", ["A", "B"])]
)
def test_joined_names_come_apart(joined: str, expected: list[str]) -> None:
    assert names(joined) == expected
