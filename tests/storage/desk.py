"""What the tests of permissions are made of: a place where it is decided what users may do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from storage import keys
from storage.connections import connect
from storage.database import Database
from storage.groups import Groups
from storage.migrations import migrate
from storage.permissions import Permissions
from storage.policies import Policies, PolicyWatch, Question
from tests.storage.people import register

JOIN = Question("queue:join", "queue:login", {})


@dataclass
class Desk:
    """Permissions on real stores; `looked_up` is how often a role was looked up, so a decision made anew."""

    redis: Redis
    database: Database
    policies: Policies
    groups: Groups
    looked_up: int = 0
    role: str | None = "NORMAL"

    def __post_init__(self) -> None:
        self.permissions = Permissions(self.redis, PolicyWatch(self.policies), self.groups, self._role_of)

    async def _role_of(self, user_id: str) -> str | None:
        self.looked_up += 1
        return self.role

    async def has(self, user_id: str, role: str, status: str = "ACTIVE") -> None:
        """Have the account's cached role and status be so, as a look at the account leaves them."""
        self.role = role if status == "ACTIVE" else None
        await self.redis.hset(keys.user(user_id), mapping={"role": role, "status": status})

    async def allowed(self, user_id: str = "anna", question: Question = JOIN) -> bool:
        return (await self.permissions.check(user_id, question)).allowed


@asynccontextmanager
async def open_desk(database_url: str, redis_url: str) -> AsyncIterator[Desk]:
    """A desk for two people of whom one is known to Redis."""
    await migrate(database_url)
    database = Database(database_url)
    await register(database, "anna", "ben")
    async with connect(redis_url) as redis:
        desk = Desk(redis, database, Policies(database, redis), Groups(database, redis))
        await desk.has("anna", "NORMAL")
        yield desk
    await database.close()
