"""Accounts, signing in and tokens (docs/protocol.md, "From login to game")."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from protocol.errors import (
    ACCOUNT_DISABLED,
    EMAIL_TAKEN,
    INVALID_CREDENTIALS,
    INVALID_TICKET,
    INVALID_TOKEN,
    QUEUE_FULL,
    TICKET_NOT_FOUND,
    TOKEN_REUSED,
    TOO_MANY_ATTEMPTS,
    USERNAME_TAKEN,
)
from protocol.messages.declaration import Access, Message, Nothing, request
from protocol.messages.matching import MatchState, Search
from protocol.messages.waiting import ClientId, TicketId, TicketStatus
from protocol.queues import Lane

MIN_PASSWORD_BYTES = 8
MAX_PASSWORD_BYTES = 72
"""bcrypt reads no more than this."""

Username = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.-]{3,32}\Z",
        description="3 to 32 of `a-z 0-9 _ . -`; upper case counts as lower case",
    ),
]
Password = Annotated[str, Meta(description=f"{MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes of UTF-8")]
Nickname = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=32,
        pattern=r"^[^\x00-\x1f\x7f]+\Z",
        description="1 to 32 characters, none of them a control character",
    ),
]
Email = Annotated[
    str,
    Meta(
        max_length=254,
        pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\Z",
        description="an email address of at most 254 characters",
    ),
]
Token = Annotated[str, Meta(min_length=1, max_length=2048)]
Fingerprint = Annotated[str, Meta(max_length=256)]


def check_password(password: str, min_bytes: int = MIN_PASSWORD_BYTES) -> None:
    """Raise ValueError, naming the field, unless the password's UTF-8 form has a length that is taken."""
    length = len(password.encode())
    if not min_bytes <= length <= MAX_PASSWORD_BYTES:
        raise ValueError(
            f"`password` must have {min_bytes} to {MAX_PASSWORD_BYTES} bytes of UTF-8, this one has {length}"
        )


class Registered(Message, frozen=True):
    """The new account's id: the username in lower case."""

    user_id: str


@request(
    "auth.register",
    owner="login",
    reply=Registered,
    access=Access.CONNECTED,
    lane=Lane.LOW,
    status=201,
    scope="username",
    errors=(USERNAME_TAKEN, EMAIL_TAKEN, TOO_MANY_ATTEMPTS),
    confidential=True,
)
class Register(Message, frozen=True):
    """Make an account. The password has 8 to 72 bytes of UTF-8."""

    username: Username
    password: Password
    email: Email
    nickname: Nickname

    def __post_init__(self) -> None:
        check_password(self.password)


class LoggedIn(Message, frozen=True):
    """A ticket. `position` counts from 1, 0 once READY; `estimatedWaitSec` is null while unknown.

    `opensAt` is there before an opening. Places are drawn then; before, `position` is the last of the tier.
    """

    tid: str
    client_id: str
    queue_type: str
    status: TicketStatus
    position: int
    total_waiting: int
    estimated_wait_sec: int | None
    opens_at: int | UnsetType = UNSET


@request(
    "auth.login",
    owner="login",
    reply=LoggedIn,
    access=Access.CONNECTED,
    scope="username",
    errors=(
        INVALID_CREDENTIALS,
        INVALID_TOKEN,
        TOKEN_REUSED,
        ACCOUNT_DISABLED,
        TOO_MANY_ATTEMPTS,
        QUEUE_FULL,
    ),
    confidential=True,
)
class Login(Message, frozen=True):
    """Ask for a place in the waiting room, by `username` and `password` or by `refreshToken`.

    A second login of the same user keeps the ticket and its place and gets a new `clientId`; the
    connection that held it before is kicked out.

    `autoMatch` has the player look for opponents as soon as they have come in by `auth.finalize`, as
    `game.match` with the same fields would: `MATCH_FOUND` or `MATCH_TIMEOUT` tells what came of it. That of
    the newest login counts.
    """

    username: Username | None = None
    password: Password | None = None
    refresh_token: Token | None = None
    client_fingerprint: Fingerprint | None = None
    auto_match: Search | None = None

    def __post_init__(self) -> None:
        if self.refresh_token is not None:
            if self.username is not None or self.password is not None:
                raise ValueError("`refreshToken` goes without `username` and `password`")
        elif self.username is None:
            raise ValueError("Object missing required field `username` (or `refreshToken`)")
        elif self.password is None:
            raise ValueError("Object missing required field `password`")
        else:
            check_password(self.password, min_bytes=0)


class TokenPair(Message, frozen=True):
    """The tokens of a signed-in user. `expiresIn` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


class Finalized(TokenPair, frozen=True):
    """The tokens, and whose they are."""

    user_id: str
    token_type: str = "Bearer"


@request(
    "auth.finalize",
    owner="login",
    reply=Finalized,
    access=Access.CONNECTED,
    lane=Lane.HIGH,
    scope="tid",
    errors=(INVALID_TICKET, TICKET_NOT_FOUND),
    confidential=True,
)
class Finalize(Message, frozen=True):
    """Spend a READY ticket: signs the connection in as its user and answers the tokens."""

    tid: TicketId
    client_id: ClientId


class Resumed(Message, frozen=True):
    """The state that a client may have missed. `expiresIn` is the access token's rest in seconds.

    `tasks` are the ids of those that are not over; `unreadNotifications` is null while it cannot be told.
    """

    user_id: str
    roles: list[str]
    permissions: list[str]
    expires_in: int
    match: MatchState | None
    tasks: list[str]
    unread_notifications: int | None


@request(
    "auth.resume",
    owner="login",
    reply=Resumed,
    access=Access.CONNECTED,
    lane=Lane.HIGH,
    errors=(INVALID_TOKEN,),
    confidential=True,
)
class Resume(Message, frozen=True):
    """Sign this connection in with an access token, after a reconnect."""

    access_token: Token


@request(
    "auth.refresh",
    owner="login",
    reply=TokenPair,
    access=Access.CONNECTED,
    lane=Lane.HIGH,
    scope="refresh_token",
    errors=(INVALID_TOKEN, TOKEN_REUSED),
    confidential=True,
)
class Refresh(Message, frozen=True):
    """Exchange a refresh token for a new pair. Using one twice revokes its whole family."""

    refresh_token: Token


@request(
    "auth.logout",
    owner="login",
    reply=Nothing,
    access=Access.CONNECTED,
    lane=Lane.HIGH,
    scope="refresh_token",
    errors=(INVALID_TOKEN,),
    confidential=True,
)
class Logout(Message, frozen=True):
    """End the stay: revokes the refresh token's family, its access tokens too."""

    refresh_token: Token
