"""What the tests of accounts and groups are made of: people in SQL, and a database that takes its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import insert

from runtime.secrets import Secrets
from storage.database import Database, Work
from storage.tables import users
from storage.users import NewUser

T = TypeVar("T")

SECRETS = Secrets(b"a master secret of tests and tests alone")

NEW = NewUser(
    user_id="user123",
    email="User@Example.com",
    nickname="닉네임 🎮",
    password_hash="$2b$04$" + "x" * 53,
    registration_id="request-1",
    created_at=1_734_516_000_123,
)


async def register(database: Database, *user_ids: str) -> None:
    """Make accounts of which nothing matters but that there are such."""
    empty = {"email": "", "nickname": "", "password_hash": "", "registration_id": "", "created_at": 0}
    rows = [{"user_id": user_id, "email_hash": user_id, **empty} for user_id in user_ids]
    await database.transaction(lambda connection: connection.execute(insert(users), rows))


class HeldDatabase(Database):
    """Reads as ever, counts it, and lets the reader have what it read only when told to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads = 0
        self.has_read = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self, work: Work[T]) -> T:
        result = await super().read(work)
        self.reads += 1
        self.has_read.set()
        await self.go_on.wait()
        return result


@asynccontextmanager
async def held(url: str) -> AsyncIterator[HeldDatabase]:
    """A database that is closed in the end."""
    database = HeldDatabase(url)
    yield database
    await database.close()
