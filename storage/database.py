"""The SQL database: MariaDB in production, SQLite in the embedded default, one way to use either.

Work is handed in as a function and run whole in one transaction, so that it can be run again when
the database asks for that. A database that is away shows as `StoreAway`, never as a hang.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.errors import StoreAway
from storage.mariadb_tls import secured

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

_MARIADB = "mysql+aiomysql"
_SQLITE = "sqlite+aiosqlite"

TIME_LIMIT_S = 1.5
"""Half a second less than a client may wait for its 503 BUSY (2 s), for the hops back to it."""

ATTEMPTS = 5
"""How often a transaction is run before the database counts as too busy."""

FIRST_PAUSE_S = 0.01
"""Mean pause before the second attempt; each later one is twice as long."""

RECYCLE_S = 600
"""Age at which a pooled connection is replaced, below any server's or firewall's idle limit."""

_BEGIN = "lobbyd_begin"

_MARIADB_CONFLICTS = frozenset({1205, 1213})
"""Lock wait timeout and deadlock: the server asks for the whole transaction again."""

_MARIADB_AWAY = frozenset(
    {
        *(1040, 1203),  # too many connections
        *(1053, 1927),  # shutting down, connection killed
        *(1290, 1836),  # read-only after a failover
        1969,  # max_statement_time
        *(2002, 2003),  # no connection
        *(2006, 2013, 2014, 2055),  # connection lost
        2026,  # no TLS, or none to be trusted
    }
)
"""https://mariadb.com/kb/en/mariadb-error-code-reference/; from 2000 on they are the client library's own."""

_SQLITE_CONFLICTS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_AWAY = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL})


class _Trouble(Enum):
    CONFLICT = auto()
    AWAY = auto()
    OTHER = auto()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("nothing")
    in_file = parsed.database not in (None, "", ":memory:")
    if parsed.drivername == _MARIADB or (parsed.drivername == _SQLITE and in_file):
        return parsed
    raise ValueError(
        f"database.url must be {_MARIADB}://user:password@host:port/name or {_SQLITE}:///path/to/file,"
        f" it starts with `{url.partition(':')[0]}`"
    )


def _open(url: URL, *, time_limit_s: float, pool_size: int) -> AsyncEngine:
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_recycle": RECYCLE_S,
        # Every transaction is ended under the time limit; the pool's own reset would be outside of it.
        "pool_reset_on_return": None,
        "hide_parameters": True,
    }
    if url.drivername == _SQLITE:
        return _open_sqlite(url, options, time_limit_s)
    return _open_mariadb(url, options, time_limit_s)


def _open_mariadb(url: URL, options: dict[str, Any], time_limit_s: float) -> AsyncEngine:
    # The server, too, is to give up what nobody waits for any more.
    lock_wait_s = max(1, int(time_limit_s / 2))
    session = (
        "SET SESSION sql_mode = 'TRADITIONAL,ONLY_FULL_GROUP_BY', time_zone = '+00:00',"
        f" innodb_lock_wait_timeout = {lock_wait_s}, max_statement_time = {time_limit_s}"
    )
    url, secure = secured(url)
    return create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        connect_args={"charset": "utf8mb4", "init_command": session, **secure},
        pool_pre_ping=True,
        **options,
    )


def _open_sqlite(url: URL, options: dict[str, Any], time_limit_s: float) -> AsyncEngine:
    # A thread that waits for another process's write cannot be cancelled: all attempts fit the time limit.
    connect_args = {"timeout": time_limit_s / ATTEMPTS, "isolation_level": None}
    engine = create_async_engine(url, connect_args=connect_args, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))

    return engine


def _trouble(error: DBAPIError) -> _Trouble:
    code: Any
    if isinstance(error.orig, sqlite3.Error):
        # The low byte; the others extend it (https://www.sqlite.org/rescode.html).
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        conflicts, away = _SQLITE_CONFLICTS, _SQLITE_AWAY
    else:
        code = next(iter(getattr(error.orig, "args", ())), None)
        conflicts, away = _MARIADB_CONFLICTS, _MARIADB_AWAY
    if code in conflicts:
        return _Trouble.CONFLICT
    return _Trouble.AWAY if error.connection_invalidated or code in away else _Trouble.OTHER


class Database:
    """A pool of connections to one database. Made once per process, it outlives the server's restarts."""

    def __init__(self, url: str, *, pool_size: int = 10, time_limit_s: float = TIME_LIMIT_S) -> None:
        """Connects to nothing yet.

        Raises ValueError for a URL of another kind of database, ConfigError for TLS that cannot be.
        """
        parsed = _parse(url)
        self._name = parsed.render_as_string(hide_password=True)
        self._time_limit_s = time_limit_s
        self._writing = _open(parsed, time_limit_s=time_limit_s, pool_size=pool_size)
        self._reading = self._writing.execution_options(**{_BEGIN: "BEGIN"})

    async def transaction(self, work: Work[T]) -> T:
        """Run `work` in one transaction and commit it; its result.

        The whole of `work` is run again when the database reports a conflict, so it must do nothing but
        use its connection, and wait for nothing else. Raises StoreAway when there is no connection, no
        answer or no end of conflicts within the time limit: the transaction may then have been committed.
        """
        return await self._run(self._writing, work)

    async def read(self, work: Work[T]) -> T:
        """Run `work`, which changes nothing, on one consistent connection; its result. Raises StoreAway."""
        return await self._run(self._reading, work)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._writing.dispose()

    async def _run(self, engine: AsyncEngine, work: Work[T]) -> T:
        try:
            async with asyncio.timeout(self._time_limit_s) as limit:
                return await self._attempts(engine, work)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreAway(f"{self._name} gave no answer within {self._time_limit_s} s") from error

    async def _attempts(self, engine: AsyncEngine, work: Work[T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return await _once(engine, work)
            except DBAPIError as error:
                trouble = _trouble(error)
                if trouble is _Trouble.OTHER:
                    raise
                if trouble is _Trouble.AWAY:
                    raise StoreAway(f"{self._name} cannot be reached: {error.orig}") from error
            await asyncio.sleep(FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))
        raise StoreAway(f"{self._name} is too busy: {ATTEMPTS} attempts met with conflicts")


async def _once(engine: AsyncEngine, work: Work[T]) -> T:
    async with engine.connect() as connection, connection.begin():
        try:
            return await work(connection)
        except asyncio.CancelledError:
            # Without this the rollback would wait, past every time limit, for a server that may be hung.
            await connection.invalidate()
            raise
