"""Migrating makes what `storage/tables.py` declares, once, whoever else migrates at the same time."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import StoreAway
from storage.migrations import migrate, revision
from storage.tables import metadata
from tests.servers import MariaServer

MIGRATE = """
import asyncio, sys
from storage.migrations import migrate
sys.stdin.read()
print(asyncio.run(migrate(sys.argv[1])).current)
"""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, time_limit_s=30.0)  # a whole schema at once
    try:
        yield database
    finally:
        await database.close()


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


async def test_migrating_makes_the_tables_as_declared(database_url: str) -> None:
    before = await revision(database_url)
    assert before.current is None
    after = await migrate(database_url)
    assert after.current == after.head == before.head
    assert await migrate(database_url) == await revision(database_url) == after
    async with opened(database_url) as database:
        assert await database.read(lambda connection: connection.run_sync(differences)) == []


async def test_mariadb_has_the_very_definition_that_is_declared(own_mariadb: MariaServer) -> None:
    async def definitions(connection: AsyncConnection) -> list[object]:
        shown = [await connection.execute(text(f"SHOW CREATE TABLE `{name}`")) for name in metadata.tables]
        return [each.one()[1] for each in shown]

    migrated_url, declared_url = (own_mariadb.create_database(name) for name in ("migrated", "declared"))
    await migrate(migrated_url)
    async with opened(migrated_url) as migrated, opened(declared_url) as declared:
        await declared.transaction(lambda connection: connection.run_sync(metadata.create_all))
        assert await migrated.read(definitions) == await declared.read(definitions)


async def test_processes_that_migrate_at_once_migrate_once(database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MIGRATE, database_url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    answers = await asyncio.gather(*(process.communicate(b"") for process in processes))
    head = (await revision(database_url)).head
    assert [(answer.decode().strip(), errors) for answer, errors in answers] == [(head, b"")] * 4


async def test_a_migration_that_was_cut_short_is_run_again(database_url: str) -> None:
    await migrate(database_url)
    async with opened(database_url) as database:
        await database.transaction(lambda connection: connection.execute(text("DELETE FROM alembic_version")))
    after = await migrate(database_url)
    assert after.current == after.head


async def test_a_server_that_is_away_cannot_be_asked_or_migrated(own_mariadb: MariaServer) -> None:
    url = own_mariadb.create_database("lobbyd")
    own_mariadb.stop()
    for asking in (revision, migrate):
        with pytest.raises(StoreAway):
            await asking(url)


async def test_a_database_that_nobody_made_is_no_store_that_is_away(mariadb_url: str) -> None:
    with pytest.raises(DBAPIError, match="Unknown database"):
        await migrate(f"{mariadb_url}_else")
