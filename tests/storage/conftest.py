"""Stores for tests of one noun, each on what its module asks for.

- `redis`: a client of the Redis at `redis_url`; `database`: a migrated one at `database_url`.
- `room`: a waiting room on each Redis, which keeps nobody waiting.

A module that goes by `pair` says so: its own `database_url` and `redis_url` are the pair's.
"""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from storage.connections import connect
from storage.database import Database
from storage.migrations import migrate
from tests.storage.room import Room, open_room


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    await migrate(database_url)
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def room(redis_url: str) -> AsyncIterator[Room]:
    async with open_room(redis_url) as opened:
        yield opened
