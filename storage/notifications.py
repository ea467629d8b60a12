"""The noun "notification": what somebody was told, kept in SQL until it is read.

A row's key is who is told and the task that tells it, so a task that is done twice tells it once.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.gathering import Gathering
from storage.servers import now_ms
from storage.tables import group_members, notifications, users

BATCH = 500
"""Recipients in one transaction."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification of one user. Times are ms since the epoch."""

    task_id: str
    sender: str
    message: str
    sent_at: int
    read_at: int | None


class Notifications:
    """The notifications of one system. Raises StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unread = Gathering(self._count_unread)

    async def existing(self, user_ids: Sequence[str]) -> set[str]:
        """Those of the users (a batch at most) who have an account."""

        async def query(connection: AsyncConnection) -> set[str]:
            found = await connection.scalars(select(users.c.user_id).where(users.c.user_id.in_(user_ids)))
            return set(found)

        return await self._database.read(query)

    async def members(self, group_id: str, after: str) -> list[str]:
        """The members of a group by their ids, a batch of those that come after `after`."""

        async def query(connection: AsyncConnection) -> list[str]:
            column = group_members.c.user_id
            found = select(column).where(group_members.c.group_id == group_id, column > after)
            return list(await connection.scalars(found.order_by(column).limit(BATCH)))

        return await self._database.read(query)

    async def keep(
        self,
        task_id: str,
        sender: str,
        message: str,
        sent_at: int,
        user_ids: Sequence[str],
        *,
        is_read: bool = False,
    ) -> set[str]:
        """Keep a notification for each of the users (a batch at most). Answers those for whom it is new.

        `is_read` is for what reached them otherwise.
        """
        if not user_ids:
            return set()
        ordered = sorted(user_ids)

        async def work(connection: AsyncConnection) -> set[str]:
            known = set(await connection.scalars(_known(task_id, ordered)))
            read_at = now_ms() if is_read else None
            fixed = {"task_id": task_id, "sender": sender, "message": message, "sent_at": sent_at}
            new = [user_id for user_id in ordered if user_id not in known]
            rows = [{**fixed, "user_id": user_id, "read_at": read_at} for user_id in new]
            if rows:
                await connection.execute(insert(notifications), rows)
            return set(new)

        return await self._database.transaction(work)

    async def kept(self, task_id: str, user_ids: Sequence[str]) -> set[str]:
        """Those of the users (a batch at most) for whom the task's notification is kept."""

        async def query(connection: AsyncConnection) -> set[str]:
            return set(await connection.scalars(_known(task_id, user_ids)))

        return await self._database.read(query)

    async def newest(self, user_id: str, most: int) -> list[Notice]:
        """A user's newest notifications, read or not, the newest first."""

        async def query(connection: AsyncConnection) -> list[Notice]:
            found = (
                select(*(notifications.c[name] for name in Notice.__dataclass_fields__))
                .where(notifications.c.user_id == user_id)
                .order_by(notifications.c.sent_at.desc(), notifications.c.task_id.desc())
                .limit(most)
            )
            return [Notice(**row._asdict()) for row in await connection.execute(found)]

        return await self._database.read(query)

    async def read(self, user_id: str, task_ids: Sequence[str]) -> None:
        """Note that a user has read these."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(
                update(notifications)
                .where(
                    notifications.c.user_id == user_id,
                    notifications.c.task_id.in_(sorted(task_ids)),
                    notifications.c.read_at.is_(None),
                )
                .values(read_at=now_ms())
            )

        await self._database.transaction(work)

    async def unread(self, user_id: str) -> int:
        """How many a user has not read. All that are asked for in a turn of the loop are counted together."""
        return await self._unread.get(user_id) or 0

    async def _count_unread(self, user_ids: Set[str]) -> Mapping[str, int]:
        async def query(connection: AsyncConnection) -> Mapping[str, int]:
            found = (
                select(notifications.c.user_id, func.count())
                .where(notifications.c.user_id.in_(user_ids), notifications.c.read_at.is_(None))
                .group_by(notifications.c.user_id)
            )
            return {user_id: int(count) for user_id, count in await connection.execute(found)}

        return await self._database.read(query)


def _known(task_id: str, user_ids: Sequence[str]) -> Select[Any]:
    return select(notifications.c.user_id).where(
        notifications.c.task_id == task_id, notifications.c.user_id.in_(user_ids)
    )
