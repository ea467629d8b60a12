"""Access tokens (JWT) and refresh tokens. Takes the time from its caller.

Both are made from facts that are stored, so that a request which is repeated gets the same tokens
again without any token being stored.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

import jwt

from runtime.secrets import Purpose, Secrets
from storage.sessions import NextToken, Rights

ALGORITHM = "HS256"
ISSUER = "lobbyd"
AUDIENCE = "lobbyd"
LEEWAY_S = 10
"""How far the clocks of two machines may be apart."""

FAMILY_BYTES = 16
SEPARATOR = "~"
REFRESH_PREFIX = "rt"


class BadToken(Exception):
    """Not a token of ours, or one that is over."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says. `expires_s` is seconds since the epoch."""

    user_id: str
    family: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    expires_s: int


class Tokens:
    """Makes and reads the tokens of one system."""

    def __init__(self, keys: Secrets, access_ttl_s: float) -> None:
        self._keys = keys
        self._access_key = keys.sign(Purpose.ACCESS_TOKEN, b"access-token signing key")
        self.access_ttl_s = int(access_ttl_s)

    def access(self, user_id: str, token: NextToken, rights: Rights, issued_ms: int) -> str:
        """The access token that goes with a refresh token; the same for the same facts."""
        issued_s = issued_ms // 1000
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "sid": token.family,
            "jti": f"{token.family}.{token.number}",
            "iat": issued_s,
            "exp": issued_s + self.access_ttl_s,
            "roles": names(rights.role),
            "permissions": names(rights.permissions),
        }
        return jwt.encode(claims, self._access_key, ALGORITHM)

    def read_access(self, token: str) -> Access:
        """Read an access token. Raises BadToken."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._access_key,
                [ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub", "sid", "jti"]},
            )
            return Access(
                user_id=claims["sub"],
                family=claims["sid"],
                roles=tuple(claims["roles"]),
                permissions=tuple(claims["permissions"]),
                expires_s=claims["exp"],
            )
        except (jwt.InvalidTokenError, KeyError, TypeError) as error:
            raise BadToken(str(error)) from error

    def refresh(self, user_id: str, family: str, number: int) -> str:
        """A family's refresh token of that number."""
        body = SEPARATOR.join((REFRESH_PREFIX, user_id, family, str(number)))
        return f"{body}{SEPARATOR}{self._seal(body)}"

    def read_refresh(self, token: str) -> tuple[str, NextToken]:
        """Whose refresh token this is, and which. Raises BadToken."""
        body, _, seal = token.rpartition(SEPARATOR)
        if not hmac.compare_digest(seal.encode(), self._seal(body).encode()):
            raise BadToken("not one of our refresh tokens")
        _, user_id, family, number = body.split(SEPARATOR)
        return user_id, NextToken(family, int(number), token_hash(token))

    def next_refresh(self, user_id: str, family: str, number: int) -> NextToken:
        """What is stored of the refresh token of that number."""
        return NextToken(family, number, token_hash(self.refresh(user_id, family, number)))

    def _seal(self, body: str) -> str:
        return _text(self._keys.sign(Purpose.REFRESH_TOKEN, body.encode()))


def new_family() -> str:
    """A fresh family's id."""
    return _text(secrets.token_bytes(FAMILY_BYTES))


def token_hash(token: str) -> str:
    """What is stored in place of a token. A token is random enough for a plain hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def names(joined: str) -> list[str]:
    """The names in a field that joins them by commas."""
    return [name for name in joined.split(",") if name]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
