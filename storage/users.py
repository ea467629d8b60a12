"""Accounts: SQL is the truth, a hash in Redis spares it a read per login.

The cached hash holds the fields that operators see, and `password_hash`: Redis stands behind the same
wall as the database, a bcrypt hash is made to be seen, and in a rush one read per login is what the
database would feel first. It lives for an hour, which is how long a change made by hand in SQL may take
to be noticed; `functions/users.lua` says why a change made in `accounts.py` is noticed at once.
"""

import asyncio
import contextlib
import json
import unicodedata
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any, Literal
from uuid import uuid4

import structlog
from redis.exceptions import RedisError
from sqlalchemy import ColumnElement, and_, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.secrets import Purpose, Secrets
from storage import keys
from storage.database import Database
from storage.errors import StoreAway, redis_away_is_store_away
from storage.functions import Library
from storage.gathering import Gathering
from storage.tables import users
from storage.wire import Executor

LIBRARY = Library("users")

CACHE_LIFE_S = 3600

MARK_LIFE_S = 10
"""How long a reader's mark is kept: well above what a read from SQL may take."""

NORMAL_ROLE = "NORMAL"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHED = ("email", "nickname", "password_hash", "role", "status", "created_at")

Row = Mapping[str, Any]
"""A row of `users`; from the cache it lacks what only SQL needs."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


class UsernameTaken(Exception):
    """Another account has this username."""


class EmailTaken(Exception):
    """Another account has this email address."""


class AccountStatus(StrEnum):
    """Whether an account may be used."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class User:
    """An account. `user_id` is the folded username; `created_at` is in ms since the epoch."""

    user_id: str
    email: str = field(repr=False)
    nickname: str
    password_hash: str = field(repr=False)
    role: str
    status: AccountStatus
    created_at: int


@dataclass(frozen=True, slots=True)
class NewUser:
    """What a registration brings.

    `user_id` is folded and `password_hash` is bcrypt's. `registration_id` (at most 128 characters) is
    the same in every repeat of the request and in no other request for this username.
    """

    user_id: str
    email: str = field(repr=False)
    nickname: str
    password_hash: str = field(repr=False)
    registration_id: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Added:
    """A registration's account; `created` is False when an earlier try of the same registration made it."""

    user: User
    created: bool


def fold(username: str) -> str:
    """The user id that a username stands for, in lower case (a username is ASCII)."""
    return username.lower()


class Users:
    """The accounts of one system. Every method raises StoreAway when a store that it needs is away."""

    def __init__(self, database: Database, redis: Executor, secrets: Secrets) -> None:
        self._database = database
        self._redis = redis
        self._secrets = secrets
        self._rows = Gathering(self._look_up)

    async def role_of(self, user_id: str) -> str | None:
        """The role of an account, None for one that may not be used or is not there."""
        user = await self.get(user_id)
        return user.role if user is not None and user.status is AccountStatus.ACTIVE else None

    async def taken(self, user_id: str, email: str) -> Literal["username", "email"] | None:
        """Which of the two is known to belong to an account, at the cost of one round trip to Redis.

        None proves nothing: a Redis that was lost knows nobody, so `add` decides. And what is taken may
        have been taken by an earlier try of this very registration: `registered` tells.
        """
        with redis_away_is_store_away():
            has_username, has_email = await asyncio.gather(
                self._redis.execute_command("SISMEMBER", keys.USERNAMES, user_id),
                self._redis.execute_command("SISMEMBER", keys.EMAILS, self._email_hash(email)),
            )
        if has_username:
            return "username"
        return "email" if has_email else None

    async def registered(self, user_id: str, registration_id: str) -> User | None:
        """The account that this registration made when it was tried before, else None.

        Anyone may send any `registration_id`: compare the password before saying that it worked.
        """
        rows = await self._find(and_(users.c.user_id == user_id, users.c.registration_id == registration_id))
        return self._user(rows[0]) if rows else None

    async def add(self, new: NewUser) -> Added:
        """Make the account, once, however often the same registration is tried.

        Raises UsernameTaken or EmailTaken when another registration has it, and StoreAway when the
        database is away: the account may then exist, which a repeat with the same `registration_id` finds.
        """
        row, mark = self._row(new), uuid4().hex
        with contextlib.suppress(StoreAway):  # then the first login caches it
            await self._cached({new.user_id}, mark)

        async def put(connection: AsyncConnection) -> None:
            await connection.execute(insert(users).values(row))

        try:
            await self._database.transaction(put)
        except IntegrityError:
            earlier = await self._earlier(new, row["email_hash"])
            if earlier is None:
                raise
            return Added(earlier, created=False)
        try:
            await self._remember([row], mark)
        except (StoreAway, RedisError) as error:
            # The account exists. What Redis lacks, the first login brings back.
            log.warning("user_not_cached", user_id=new.user_id, error=str(error))
        return Added(self._user(row), created=True)

    async def get(self, user_id: str) -> User | None:
        """The account, from Redis or else from SQL, which then fills the cache; None when there is none.

        All that are asked for in one turn of the loop are looked up together.
        """
        return (await self.look_up(user_id))[0]

    async def look_up(self, user_id: str) -> tuple[User | None, bool]:
        """The account as `get` answers it, and whether SQL had to be asked."""
        row = await self._rows.get(user_id)
        if row is None:
            return None, True
        return self._user(row), "email_hash" in row

    async def read_again(self, user_id: str) -> None:
        """Read an account that was in the cache from SQL, and make nothing of it.

        That is what a name that nobody has costs, and how it fails: a refusal tells neither.
        """
        await self._find(users.c.user_id == user_id)

    async def _look_up(self, user_ids: Set[str]) -> dict[str, Row]:
        mark = uuid4().hex
        rows = await self._cached(user_ids, mark)
        missing = user_ids - rows.keys()
        if missing:
            found = await self._find(users.c.user_id.in_(missing))
            await self._remember(found, mark)
            rows |= {row["user_id"]: row for row in found}
        return rows

    async def _cached(self, user_ids: Set[str], mark: str) -> dict[str, Row]:
        """What the cache has; in place of what it lacks there is the mark."""
        ordered = list(user_ids)
        names = [keys.user(user_id) for user_id in ordered]
        answers: list[list[bytes] | None] = await LIBRARY.call(
            self._redis, "users_read", names, [mark, MARK_LIFE_S * 1000, *_CACHED]
        )
        return {
            user_id: _from_cache(user_id, [value.decode() for value in values])
            for user_id, values in zip(ordered, answers, strict=True)
            if values is not None
        }

    async def _earlier(self, new: NewUser, email_hash: str) -> User | None:
        """The account of the same registration; raises when what stands in its way is another's."""
        rows = await self._find(or_(users.c.user_id == new.user_id, users.c.email_hash == email_hash))
        for row in rows:
            if row["user_id"] == new.user_id:
                if row["registration_id"] != new.registration_id:
                    raise UsernameTaken(new.user_id)
                return self._user(row)
        if rows:
            raise EmailTaken(new.user_id)
        return None

    async def _find(self, which: ColumnElement[bool]) -> list[Row]:
        async def query(connection: AsyncConnection) -> list[Row]:
            return [row._asdict() for row in await connection.execute(select(users).where(which))]

        return await self._database.read(query)

    async def _remember(self, rows: Sequence[Row], mark: str) -> None:
        if not rows:
            return
        names = [keys.user(row["user_id"]) for row in rows]
        fields = [json.dumps([*chain.from_iterable(_to_cache(row).items())]) for row in rows]
        with redis_away_is_store_away():
            await LIBRARY.call(self._redis, "users_fill", names, [mark, CACHE_LIFE_S * 1000, *fields])
            await asyncio.gather(
                self._redis.execute_command("SADD", keys.USERNAMES, *(row["user_id"] for row in rows)),
                self._redis.execute_command("SADD", keys.EMAILS, *(row["email_hash"] for row in rows)),
            )

    def _row(self, new: NewUser) -> Row:
        return {
            "user_id": new.user_id,
            "email_hash": self._email_hash(new.email),
            "email": self._secrets.encryption.encrypt(new.email, email_context(new.user_id)),
            "nickname": new.nickname,
            "password_hash": new.password_hash,
            "role": NORMAL_ROLE,
            "status": AccountStatus.ACTIVE.value,
            "created_at": new.created_at,
            "registration_id": new.registration_id,
        }

    def _user(self, row: Row) -> User:
        user_id = row["user_id"]
        return User(
            user_id=user_id,
            email=self._secrets.encryption.decrypt(row["email"], email_context(user_id)),
            nickname=row["nickname"],
            password_hash=row["password_hash"],
            role=row["role"],
            status=AccountStatus(row["status"]),
            created_at=row["created_at"],
        )

    def _email_hash(self, email: str) -> str:
        """The same for all spellings of an address that one person would call the same."""
        return self._secrets.keyed_hash(Purpose.EMAIL, unicodedata.normalize("NFC", email).casefold())


def email_context(user_id: str) -> str:
    """What the encrypted address of this user is bound to."""
    return f"email of {user_id}"


def _to_cache(row: Row) -> dict[Any, str]:
    fields = {name: row[name] for name in _CACHED}
    return {**fields, "username": row["user_id"], "created_at": _iso(row["created_at"])}


def _from_cache(user_id: str, values: Sequence[str]) -> Row:
    fields = dict(zip(_CACHED, values, strict=True))
    return {**fields, "user_id": user_id, "created_at": _milliseconds(fields["created_at"])}


def _iso(milliseconds: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(iso: str) -> int:
    return (datetime.fromisoformat(iso) - _EPOCH) // timedelta(milliseconds=1)
