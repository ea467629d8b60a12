"""Nicknames from memory, while others ask and forget."""

import asyncio

import pytest
from sqlalchemy import update

from storage import nicknames
from storage.connections import connect_wire
from storage.database import Database
from storage.nicknames import Nicknames
from storage.tables import users
from tests.storage.people import held, register


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """One kind of Redis: nothing here depends on it."""
    return valkey_url


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database: nothing here depends on it."""
    return sqlite_url


@pytest.mark.usefixtures("redis")
async def test_who_looks_for_one_brings_nothing_back_that_was_forgotten(
    database: Database, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(database, "hana")
    wire = connect_wire(redis_url)
    async with held(database_url) as slow:
        names = Nicknames(slow, wire)
        slow.go_on.set()
        assert await names.of(["hana"]) == {"hana": "hana"}
        await _rename(database, "hana", "하나")

        slow.has_read.clear()
        slow.go_on.clear()
        looking = asyncio.create_task(names.knows("nobody"))
        await slow.has_read.wait()
        monkeypatch.setattr(nicknames, "LIFE_S", 0)
        await names.of([])
        monkeypatch.undo()
        slow.go_on.set()

        assert not await looking
        assert await names.of(["hana"]) == {"hana": "하나"}
    await wire.aclose()


async def _rename(database: Database, user_id: str, nickname: str) -> None:
    renaming = update(users).where(users.c.user_id == user_id).values(nickname=nickname)
    await database.transaction(lambda connection: connection.execute(renaming))
