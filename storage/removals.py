"""The noun "removal": a user whose scores count on no board, until that is taken back. Nothing is deleted."""

from collections.abc import Set

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.servers import now_ms
from storage.tables import ranking_removals


class Removals:
    """Who is removed, as SQL has it. Raises StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user_id: str, operator: str, reason: str) -> bool:
        """Remove a user; False for one who is removed already."""
        row = {
            "user_id": user_id,
            "operator": operator[:64],
            "reason": reason[:255],
            "removed_at": now_ms(),
        }

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(ranking_removals).values(row))

        try:
            await self._database.transaction(work)
        except IntegrityError:
            return False
        return True

    async def take_back(self, user_id: str) -> bool:
        """Let a user's scores count again; False for one who is not removed."""

        async def work(connection: AsyncConnection) -> bool:
            found = await connection.execute(
                delete(ranking_removals).where(ranking_removals.c.user_id == user_id)
            )
            return found.rowcount > 0

        return await self._database.transaction(work)

    async def all(self) -> Set[str]:
        """Everybody who is removed."""

        async def query(connection: AsyncConnection) -> Set[str]:
            return set(await connection.scalars(select(ranking_removals.c.user_id)))

        return await self._database.read(query)
