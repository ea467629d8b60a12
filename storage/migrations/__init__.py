"""Brings a database's schema to the newest revision, from any process, however many try at once.

A revision is one file in `versions/`, hand-written; `tests/storage/test_migrations.py` holds them against
`storage/tables.py`. MariaDB commits each DDL statement at once, and what was cut short is run again from
its start: write each statement so that it can be (`if_not_exists=True`).
"""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import StoreAway

LOCK_WAIT_S = 60
"""How long a process waits for another one's migration."""

_MIGRATION_LIMIT_S = 3600.0
_FOLDER = Path(__file__).parent


class NewerSchema(Exception):
    """A newer release has migrated the database; the text tells people what to do."""


class Revision(NamedTuple):
    """Where a schema stands: `current` is None for an empty database, `head` is what this code needs.

    `is_newer` is it where this code does not know `current`.
    """

    current: str | None
    head: str
    is_newer: bool


async def revision(url: str) -> Revision:
    """Where the database at `url` stands. Raises StoreAway when it cannot be reached."""
    database = Database(url, pool_size=1)
    try:
        return await database.read(lambda connection: connection.run_sync(_revision))
    finally:
        await database.close()


async def migrate(url: str) -> Revision:
    """Bring the database at `url` to the newest revision; where it then stands.

    Safe in several processes at once: one migrates, the others wait and find nothing to do. Within a
    process, one call at a time (alembic's context is global). Raises StoreAway when the database cannot be
    reached or another process's migration does not end within LOCK_WAIT_S seconds, and NewerSchema.
    """
    now = await revision(url)
    if now.is_newer:
        raise NewerSchema(
            f"the database has schema {now.current}, of a newer release; this one knows those up to "
            f"{now.head}: run the newer release, or restore the database from a backup"
        )
    if now.current == now.head:
        return now
    database = Database(url, pool_size=1, time_limit_s=_MIGRATION_LIMIT_S)
    try:
        return await database.transaction(_upgrade_alone)
    finally:
        await database.close()


async def _upgrade_alone(connection: AsyncConnection) -> Revision:
    # SQLite needs no lock but that with which every transaction begins; MariaDB's ends with its session.
    if connection.dialect.name != "sqlite":
        database = str(connection.engine.url.database)
        name = f"lobbyd:{sha256(database.encode()).hexdigest()[:32]}"  # one name space for all databases
        if await connection.scalar(select(func.get_lock(name, LOCK_WAIT_S))) != 1:
            raise StoreAway(f"another process has been migrating `{database}` for {LOCK_WAIT_S} s")
    await connection.run_sync(_upgrade)
    return await connection.run_sync(_revision)


def _upgrade(connection: Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    command.upgrade(config, "head")


def _revision(connection: Connection) -> Revision:
    known = [each.revision for each in ScriptDirectory(str(_FOLDER)).walk_revisions()]
    if not known:
        raise RuntimeError(f"{_FOLDER / 'versions'} holds no migration: the installation is not complete")
    current = MigrationContext.configure(connection).get_current_revision()
    return Revision(current, known[0], current is not None and current not in known)
