"""Which groups there are: their names, what they permit and how many belong to each.

`storage/groups.py` is about who belongs to which.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.database import Database
from storage.errors import redis_away_is_store_away
from storage.groups import BATCH, Group, GroupNotFound
from storage.policies.cache import PolicyCache
from storage.servers import now_ms
from storage.tables import group_members, groups
from storage.wire import Executor

MOST_PERMISSIONS_CHARACTERS = 2048

_GROUP_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_PERMISSION = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")


class GroupFault(ValueError):
    """A group that cannot be; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a group is to be."""

    group_id: str
    group_name: str
    description: str
    permissions: Sequence[str]

    def check(self) -> None:
        """Raises GroupFault."""
        if not _GROUP_ID.match(self.group_id):
            raise GroupFault(f"`{self.group_id}`: a group's id is 1 to 64 of `A-Z a-z 0-9 _ . -`")
        for text, name, most in ((self.group_name, "name", 64), (self.description, "description", 255)):
            if len(text) > most or not text.isprintable():
                raise GroupFault(f"a group's {name} has at most {most} characters that print")
        for permission in self.permissions:
            if not _PERMISSION.match(permission):
                raise GroupFault(f"`{permission}`: a permission is 1 to 64 of `A-Z a-z 0-9 _ . : -`")
        if len(",".join(self.permissions)) > MOST_PERMISSIONS_CHARACTERS:
            raise GroupFault(
                f"the permissions of a group have {MOST_PERMISSIONS_CHARACTERS} characters at most"
            )


class GroupCatalogue:
    """The groups of one system. Every method raises StoreAway when a store that it needs is away.

    A change that returns is seen by all who ask from then on, as with `Groups`.
    """

    def __init__(self, database: Database, redis: Executor) -> None:
        self._database = database
        self._redis = redis
        self._cache = PolicyCache(redis)

    async def put(self, group: Definition) -> None:
        """Have this group, in place of the one of its id if there is one. Raises GroupFault."""
        group.check()
        await self._database.transaction(lambda connection: _put(connection, group))
        await self._cache.changed()

    async def get(self, group_id: str) -> Group:
        """The group, read from SQL. Raises GroupNotFound."""

        async def query(connection: AsyncConnection) -> Group:
            row = (
                await connection.execute(select(groups).where(groups.c.group_id == group_id))
            ).one_or_none()
            if row is None:
                raise GroupNotFound(group_id)
            return Group.of_row(**row._asdict())

        return await self._database.read(query)

    async def remove(self, group_id: str) -> int:
        """Have no group of this id. Answers how many belonged to it. Raises GroupNotFound."""
        members = await self._database.transaction(lambda connection: _remove(connection, group_id))
        with redis_away_is_store_away():
            for first in range(0, len(members), BATCH):
                sets = map(keys.user_groups, members[first : first + BATCH])
                await self._redis.execute_command("DEL", *sets)
            await self._redis.execute_command("DEL", keys.group(group_id))
        await self._cache.changed()
        return len(members)

    async def members(self, group_id: str, most: int) -> list[str]:
        """The first of those who belong to a group, by user id; read from SQL."""

        async def query(connection: AsyncConnection) -> list[str]:
            mine = select(group_members.c.user_id).where(group_members.c.group_id == group_id)
            return list(await connection.scalars(mine.order_by(group_members.c.user_id).limit(most)))

        return await self._database.read(query)

    async def member_counts(self, group_ids: Iterable[str]) -> dict[str, int]:
        """How many belong to each, from Redis or else from SQL, which then fills the cache."""
        known = {group_id: await self._cache.member_count(group_id) for group_id in sorted(group_ids)}
        missing = [group_id for group_id, (count, _) in known.items() if count is None]
        counted = await self._count(missing) if missing else {}
        for group_id in missing:
            await self._cache.counted(group_id, known[group_id][1], counted.get(group_id, 0))
        return {
            group_id: counted.get(group_id, 0) if count is None else count
            for group_id, (count, _) in known.items()
        }

    async def _count(self, group_ids: Sequence[str]) -> dict[str, int]:
        async def query(connection: AsyncConnection) -> dict[str, int]:
            column = group_members.c.group_id
            rows = await connection.execute(
                select(column, func.count().label("members")).where(column.in_(group_ids)).group_by(column)
            )
            return {row.group_id: row.members for row in rows}

        return await self._database.read(query)


async def _put(connection: AsyncConnection, group: Definition) -> None:
    values = {
        "group_name": group.group_name,
        "description": group.description,
        "permissions": ",".join(group.permissions),
    }
    which = groups.c.group_id == group.group_id
    if await connection.scalar(select(groups.c.group_id).where(which).with_for_update()) is None:
        row = {"group_id": group.group_id, "created_at": now_ms(), **values}
        await connection.execute(insert(groups).values(row))
    else:
        await connection.execute(update(groups).where(which).values(values))


async def _remove(connection: AsyncConnection, group_id: str) -> list[str]:
    which = groups.c.group_id == group_id
    if await connection.scalar(select(groups.c.group_id).where(which).with_for_update()) is None:
        raise GroupNotFound(group_id)
    theirs = group_members.c.group_id == group_id
    members = list(await connection.scalars(select(group_members.c.user_id).where(theirs)))
    await connection.execute(delete(group_members).where(theirs))
    await connection.execute(delete(groups).where(which))
    return members
