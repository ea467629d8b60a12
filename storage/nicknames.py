"""What users are called, for who looks at many of them: from memory, cached accounts or SQL."""

import time
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.database import Database
from storage.errors import redis_away_is_store_away
from storage.tables import users
from storage.wire import Command, Wire

LIFE_S = 60.0
"""How long a changed nickname may go unnoticed."""

MOST_KEPT = 100_000


class Nicknames:
    """Nicknames by user id. Raises StoreAway."""

    def __init__(self, database: Database, redis: Wire) -> None:
        self._database = database
        self._redis = redis
        self._kept: dict[str, str | None] = {}
        self._since_s = 0.0

    async def of(self, user_ids: Iterable[str]) -> Mapping[str, str]:
        """What these users are called; who has no account is called by their id."""
        self._forget_old()
        wanted = list(user_ids)
        kept = self._kept
        missing = [user_id for user_id in wanted if user_id not in kept]
        if missing:
            kept |= dict.fromkeys(missing) | await self._find(missing)
        return {user_id: kept[user_id] or user_id for user_id in wanted}

    async def knows(self, user_id: str) -> bool:
        """Whether there is such an account."""
        if self._kept.get(user_id) is not None:
            return True
        found = await self._find([user_id])
        self._kept |= found  # what is kept by now
        return user_id in found

    def _forget_old(self) -> None:
        """All at once: it is found again in one look."""
        now_s = time.monotonic()
        if now_s - self._since_s > LIFE_S or len(self._kept) > MOST_KEPT:
            self._kept, self._since_s = {}, now_s

    async def _find(self, user_ids: Sequence[str]) -> dict[str, str]:
        reads: list[Command] = [("HGET", keys.user(user_id), "nickname") for user_id in user_ids]
        with redis_away_is_store_away():
            answers = await self._redis.execute_commands(reads)
        found = {}
        for user_id, answer in zip(user_ids, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                found[user_id] = answer.decode()
        unknown = [user_id for user_id, answer in zip(user_ids, answers, strict=True) if answer is None]
        return found | await self._find_in_sql(unknown) if unknown else found

    async def _find_in_sql(self, user_ids: Sequence[str]) -> dict[str, str]:
        async def query(connection: AsyncConnection) -> dict[str, str]:
            rows = await connection.execute(
                select(users.c.user_id, users.c.nickname).where(users.c.user_id.in_(user_ids))
            )
            return {row.user_id: row.nickname for row in rows}

        return await self._database.read(query)
