"""Accounts as operators see and change them: who somebody is, and whether they may come in.

No password and no email: what operators do here needs no secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.database import Database
from storage.errors import redis_away_is_store_away
from storage.tables import users
from storage.users import AccountStatus
from storage.wire import Executor


class AccountNotFound(Exception):
    """Nobody has this user id."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account without its secrets. `created_at` is in ms since the epoch."""

    user_id: str
    nickname: str
    role: str
    status: AccountStatus
    created_at: int


class Accounts:
    """The accounts of one system. Every method raises StoreAway.

    A change that returns is seen by all who ask from then on. One that met a StoreAway may have been made
    while the cache still knows nothing of it: repeat it, which does no harm.
    """

    def __init__(self, database: Database, redis: Executor) -> None:
        self._database = database
        self._redis = redis

    async def find(self, user_id: str) -> Account:
        """The account as SQL has it. Raises AccountNotFound."""
        return await self._database.read(lambda connection: _read(connection, user_id))

    async def set_status(self, user_id: str, status: AccountStatus) -> Account:
        """Say whether the account may be used. Answers what it was before. Raises AccountNotFound."""
        return await self._change(user_id, {"status": status.value})

    async def set_role(self, user_id: str, role: str) -> Account:
        """Give the account a role. Answers what it was before. Raises AccountNotFound."""
        return await self._change(user_id, {"role": role})

    async def _change(self, user_id: str, values: Mapping[str, str]) -> Account:
        async def work(connection: AsyncConnection) -> Account:
            before = await _read(connection, user_id, for_update=True)
            await connection.execute(update(users).where(users.c.user_id == user_id).values(values))
            return before

        before = await self._database.transaction(work)
        with redis_away_is_store_away():
            await self._redis.execute_command("DEL", keys.user(user_id))
        return before


async def _read(connection: AsyncConnection, user_id: str, *, for_update: bool = False) -> Account:
    columns = (users.c.user_id, users.c.nickname, users.c.role, users.c.status, users.c.created_at)
    query = select(*columns).where(users.c.user_id == user_id)
    row = (await connection.execute(query.with_for_update() if for_update else query)).one_or_none()
    if row is None:
        raise AccountNotFound(user_id)
    return Account(row.user_id, row.nickname, row.role, AccountStatus(row.status), row.created_at)
