"""The noun "group": SQL is the truth of who belongs to which, a set in Redis spares it a read per login.

That a user has no groups is cached like anything else, as the one member `""`: Redis knows no empty set, and
most users have none, so without it the database would be asked at almost every login. A set lives for an
hour, which is how long a change made by hand in SQL may take to be noticed; `functions/groups.lua` says why a
change made here is noticed at once.
"""

import json
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.database import Database, Work
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.gathering import Gathering
from storage.policies.cache import PolicyCache, permission_names
from storage.servers import now_ms
from storage.tables import group_members, groups, users
from storage.wire import Executor

LIBRARY = Library("groups")

CACHE_LIFE_S = 3600

MARK_LIFE_S = 10
"""How long a reader's mark is kept: well above what a read from SQL may take."""

BATCH = 1000
"""Members added in one transaction, so that it stays far below the database's time limit."""

_NO_GROUPS = ""


class GroupNotFound(Exception):
    """There is no group of this id."""


class UserNotFound(Exception):
    """There is no account of this user id; of several, the first is named."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of users and what belonging to it permits. `created_at` is in ms since the epoch."""

    group_id: str
    group_name: str
    description: str
    permissions: tuple[str, ...]
    created_at: int

    @classmethod
    def of_row(cls, *, permissions: str, **fields: Any) -> "Group":
        """The group that a row of `groups` holds."""
        return cls(**fields, permissions=permission_names(permissions))


class Groups:
    """The groups of one system. Every method raises StoreAway when a store that it needs is away.

    A change that returns is seen by all who ask from then on. One that was cancelled or met a StoreAway may
    have been made while the cache still knows nothing of it: repeat it, which does no harm.
    """

    def __init__(self, database: Database, redis: Executor) -> None:
        self._database = database
        self._redis = redis
        self._cache = PolicyCache(redis)
        self._memberships = Gathering(self._look_up)

    async def all(self) -> list[Group]:
        """Every group, by id; read from SQL."""

        async def query(connection: AsyncConnection) -> list[Group]:
            rows = await connection.execute(select(groups).order_by(groups.c.group_id))
            return [Group.of_row(**row._asdict()) for row in rows]

        return await self._database.read(query)

    async def of(self, user_id: str) -> frozenset[str]:
        """The ids of the user's groups, from Redis or else from SQL, which then fills the cache.

        Nobody knows whether there is such a user: one without an account has no groups. All that are
        asked for in one turn of the loop are looked up together.
        """
        return await self._memberships.get(user_id) or frozenset()

    async def add(self, group_id: str, user_id: str) -> None:
        """Make the user a member, if it is none yet. Raises GroupNotFound or UserNotFound."""
        await self.add_many(group_id, [user_id])

    async def add_many(self, group_id: str, user_ids: Iterable[str]) -> None:
        """Make all of them members, BATCH at a time. Raises GroupNotFound or UserNotFound.

        When it raises, those of the batches before are members.
        """
        for batch in _batches(user_ids):
            await self._change(_adding(group_id, batch), group_id, batch)

    async def remove(self, group_id: str, user_id: str) -> None:
        """End the user's membership, if it has one. Raises GroupNotFound or UserNotFound."""

        async def work(connection: AsyncConnection) -> None:
            await _need(connection, group_id, [user_id])
            await connection.execute(
                delete(group_members).where(
                    group_members.c.group_id == group_id, group_members.c.user_id == user_id
                )
            )

        await self._change(work, group_id, [user_id])

    async def _change(self, work: Work[None], group_id: str, user_ids: Sequence[str]) -> None:
        await self._database.transaction(work)
        await self._cache.joined(group_id)
        with redis_away_is_store_away():
            await self._redis.execute_command("DEL", *map(keys.user_groups, user_ids))

    async def _look_up(self, user_ids: Set[str]) -> dict[str, frozenset[str]]:
        mark = f"?{uuid4().hex}"
        found = await self._cached(user_ids, mark)
        missing = user_ids - found.keys()
        if missing:
            read = await self._find(missing)
            await self._remember(read, mark)
            found |= read
        return found

    async def _cached(self, user_ids: Set[str], mark: str) -> dict[str, frozenset[str]]:
        """What the cache has; in place of what it lacks there is the mark."""
        ordered = list(user_ids)
        names = [keys.user_groups(user_id) for user_id in ordered]
        answers: list[list[bytes] | None] = await LIBRARY.call(
            self._redis, "groups_read", names, [mark, MARK_LIFE_S * 1000]
        )
        return {
            user_id: frozenset(member.decode() for member in members) - {_NO_GROUPS}
            for user_id, members in zip(ordered, answers, strict=True)
            if members is not None
        }

    async def _find(self, user_ids: Set[str]) -> dict[str, frozenset[str]]:
        async def query(connection: AsyncConnection) -> dict[str, frozenset[str]]:
            found: dict[str, set[str]] = {user_id: set() for user_id in user_ids}
            columns = (group_members.c.user_id, group_members.c.group_id)
            for user_id, group_id in await connection.execute(
                select(*columns).where(group_members.c.user_id.in_(user_ids))
            ):
                found[user_id].add(group_id)
            return {user_id: frozenset(group_ids) for user_id, group_ids in found.items()}

        return await self._database.read(query)

    async def _remember(self, memberships: dict[str, frozenset[str]], mark: str) -> None:
        names = [keys.user_groups(user_id) for user_id in memberships]
        members = [json.dumps(sorted(group_ids) or [_NO_GROUPS]) for group_ids in memberships.values()]
        await LIBRARY.call(self._redis, "groups_fill", names, [mark, CACHE_LIFE_S * 1000, *members])


def _adding(group_id: str, user_ids: Sequence[str]) -> Work[None]:
    async def work(connection: AsyncConnection) -> None:
        await _need(connection, group_id, user_ids)
        are_members = select(group_members.c.user_id).where(
            group_members.c.group_id == group_id, group_members.c.user_id.in_(user_ids)
        )
        new = sorted(set(user_ids) - set(await connection.scalars(are_members)))
        created_at = now_ms()
        if new:
            await connection.execute(
                insert(group_members),
                [{"group_id": group_id, "user_id": user_id, "created_at": created_at} for user_id in new],
            )

    return work


async def _need(connection: AsyncConnection, group_id: str, user_ids: Sequence[str]) -> None:
    """Raise GroupNotFound or UserNotFound, or else lock the group: its members change one after the other."""
    group = select(groups.c.group_id).where(groups.c.group_id == group_id).with_for_update()
    if await connection.scalar(group) is None:
        raise GroupNotFound(group_id)
    known = set(await connection.scalars(select(users.c.user_id).where(users.c.user_id.in_(user_ids))))
    for user_id in user_ids:
        if user_id not in known:
            raise UserNotFound(user_id)


def _batches(user_ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(user_ids)
    while batch := list(islice(rest, BATCH)):
        yield batch
