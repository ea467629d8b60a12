"""A Database keeps transactions whole, runs them again, and says within its limit that its server is away."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import ATTEMPTS, TIME_LIMIT_S, Database
from storage.errors import StoreAway
from tests.servers import MariaServer

# Longer than the limit that a Database is given, shorter than any wait that it must not fall into.
PATIENCE_S = 30.0

scratch = MetaData()
rows = Table(
    "scratch_rows",
    scratch,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    Column("blob", LargeBinary),
)


@asynccontextmanager
async def opened(
    url: str, *, pool_size: int = 10, time_limit_s: float = TIME_LIMIT_S
) -> AsyncIterator[Database]:
    database = Database(url, pool_size=pool_size, time_limit_s=time_limit_s)
    try:
        yield database
    finally:
        await database.close()


def patient(url: str, *, pool_size: int = 10) -> AbstractAsyncContextManager[Database]:
    return opened(url, pool_size=pool_size, time_limit_s=PATIENCE_S)


async def make_rows(database: Database, count: int = 2) -> None:
    async def make(connection: AsyncConnection) -> None:
        await connection.run_sync(scratch.create_all)
        await connection.execute(insert(rows), [{"id": number, "value": 0} for number in range(count)])

    await database.transaction(make)


def add(row: int, amount: int = 1) -> Callable[[AsyncConnection], Awaitable[None]]:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(update(rows).where(rows.c.id == row).values(value=rows.c.value + amount))

    return work


async def values(database: Database) -> list[int]:
    async def work(connection: AsyncConnection) -> list[int]:
        return list((await connection.scalars(select(rows.c.value).order_by(rows.c.id))).all())

    return await database.read(work)


async def one(connection: AsyncConnection) -> object:
    return await connection.scalar(text("SELECT 1"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mariadb",
        "postgresql://host/name",
        "mysql://host/name",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
    ],
)
def test_another_kind_of_database_is_refused_in_words(url: str) -> None:
    with pytest.raises(ValueError, match=r"^database\.url must be mysql\+aiomysql://"):
        Database(url)


async def test_a_transaction_is_committed_and_its_result_returned(database_url: str) -> None:
    async with opened(database_url) as database:
        await make_rows(database)

        async def work(connection: AsyncConnection) -> str:
            await add(0, 5)(connection)
            return "done"

        assert await database.transaction(work) == "done"
        assert await values(database) == [5, 0]


async def test_a_transaction_that_fails_leaves_nothing(database_url: str) -> None:
    async with opened(database_url) as database:
        await make_rows(database)

        async def work(connection: AsyncConnection) -> None:
            await add(0)(connection)
            await connection.execute(insert(rows).values(id=1, value=1))

        with pytest.raises(IntegrityError):
            await database.transaction(work)
        assert await values(database) == [0, 0]


async def test_the_errors_of_work_are_its_own(database_url: str) -> None:
    async with opened(database_url) as database:
        await make_rows(database)

        async def work(connection: AsyncConnection) -> None:
            await add(0)(connection)
            raise TimeoutError("not the database's")

        with pytest.raises(TimeoutError, match="not the database's"):
            await database.transaction(work)
        assert await values(database) == [0, 0]


async def test_bytes_go_in_and_come_back(database_url: str) -> None:
    blob = bytes(range(256)) + b"'\\\x00\"%s"
    async with opened(database_url) as database:
        await make_rows(database)

        async def work(connection: AsyncConnection) -> object:
            await connection.execute(update(rows).where(rows.c.id == 1).values(blob=blob))
            return await connection.scalar(select(rows.c.blob).where(rows.c.blob == blob))

        assert await database.transaction(work) == blob


async def test_concurrent_increments_are_all_counted(database_url: str) -> None:
    async with patient(database_url) as first, patient(database_url) as second:
        await make_rows(first)
        await asyncio.gather(*(one.transaction(add(0)) for one in (first, second) for _ in range(50)))
        assert await values(second) == [100, 0]


async def test_opening_a_new_sqlite_many_times_at_once(sqlite_url: str) -> None:
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(patient(sqlite_url)) for _ in range(20)]
        await asyncio.gather(*(database.read(one) for database in databases))


async def test_errors_hide_their_parameters(database_url: str) -> None:
    async with opened(database_url) as database:
        await make_rows(database)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(rows).values(id=0, value=424242, blob=b"a secret"))

        with pytest.raises(IntegrityError) as caught:
            await database.transaction(work)
        assert "424242" not in str(caught.value)
        assert "a secret" not in str(caught.value)


async def test_mariadb_sessions_are_strict_utc_and_read_committed(mariadb_url: str) -> None:
    async with opened(mariadb_url) as database:

        async def settings(connection: AsyncConnection) -> list[object]:
            names = (
                "sql_mode",
                "time_zone",
                "tx_isolation",
                "character_set_connection",
                "max_statement_time",
            )
            return [await connection.scalar(text(f"SELECT @@{name}")) for name in names]

        sql_mode, time_zone, isolation, charset, statement_limit_s = await database.read(settings)
    assert {"STRICT_ALL_TABLES", "ONLY_FULL_GROUP_BY", "NO_ZERO_DATE"} <= set(str(sql_mode).split(","))
    assert [time_zone, isolation, charset] == ["+00:00", "READ-COMMITTED", "utf8mb4"]
    assert statement_limit_s == TIME_LIMIT_S


async def test_sqlite_keeps_a_log_and_its_references(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:

        async def settings(connection: AsyncConnection) -> list[object]:
            names = ("journal_mode", "foreign_keys")
            return [await connection.scalar(text(f"PRAGMA {name}")) for name in names]

        assert await database.read(settings) == ["wal", 1]


async def test_a_deadlock_runs_the_whole_loser_again(mariadb_url: str) -> None:
    async with opened(mariadb_url) as database:
        await make_rows(database)
        both_hold_one = asyncio.Barrier(2)
        runs = 0

        def locking(first: int, second: int) -> Callable[[AsyncConnection], Awaitable[None]]:
            met = False

            async def work(connection: AsyncConnection) -> None:
                nonlocal met, runs
                runs += 1
                await add(first)(connection)
                if not met:
                    met = True
                    await both_hold_one.wait()
                await add(second)(connection)

            return work

        await asyncio.gather(database.transaction(locking(0, 1)), database.transaction(locking(1, 0)))
        assert runs == 3
        assert await values(database) == [2, 2]


async def test_conflicts_without_end_are_given_up(mariadb_url: str) -> None:
    runs = 0

    async def deadlocked(connection: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        await connection.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))

    async with patient(mariadb_url) as database:
        with pytest.raises(StoreAway, match="too busy"):
            await database.transaction(deadlocked)
    assert runs == ATTEMPTS


async def test_a_row_that_another_holds_is_waited_for_no_longer_than_the_limit(mariadb_url: str) -> None:
    async with opened(mariadb_url) as database, patient(mariadb_url) as holder:
        await make_rows(database)
        held, release = asyncio.Event(), asyncio.Event()

        async def hold(connection: AsyncConnection) -> None:
            await add(0, 10)(connection)
            held.set()
            await release.wait()

        holding = asyncio.create_task(holder.transaction(hold))
        await held.wait()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreAway):
                await database.transaction(add(0))
        release.set()
        await holding
        await database.transaction(add(0))
        assert await values(database) == [11, 0]


async def test_a_locked_sqlite_is_away_until_it_is_released(sqlite_url: str) -> None:
    async with opened(sqlite_url, time_limit_s=1.0) as database:
        await make_rows(database)
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreAway):
                await database.transaction(add(0))
        assert await values(database) == [0, 0]  # a log lets readers go on
        other.execute("ROLLBACK")
        other.close()
        await database.transaction(add(0))
        assert await values(database) == [1, 0]


async def test_a_sqlite_transaction_may_read_before_it_writes(sqlite_url: str) -> None:
    runs = 0

    async def read_then_write(connection: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        value = (await connection.scalars(select(rows.c.value).where(rows.c.id == 0))).one()
        await connection.execute(update(rows).where(rows.c.id == 0).values(value=value + 1))

    async with patient(sqlite_url) as first, patient(sqlite_url) as second:
        await make_rows(first)
        await asyncio.gather(
            *(one.transaction(read_then_write) for one in (first, second) for _ in range(10))
        )
        assert await values(first) == [20, 0]
    assert runs == 20


async def test_a_sqlite_without_its_folder_is_away(sqlite_url: str) -> None:
    threads = threading.active_count()
    async with opened(sqlite_url.replace("lobbyd.sqlite3", "nowhere/lobbyd.sqlite3")) as database:
        with pytest.raises(StoreAway, match="unable to open"):
            await database.read(one)
    while (
        threading.active_count() > threads
    ):  # the driver ends its thread in the background, and needs the loop for it
        await asyncio.sleep(0.01)


async def test_a_mariadb_that_stops_is_away_and_comes_back(own_mariadb: MariaServer) -> None:
    async with opened(own_mariadb.create_database("lobbyd")) as database:
        await make_rows(database)
        inside, stopped = asyncio.Event(), asyncio.Event()

        async def interrupted(connection: AsyncConnection) -> None:
            await add(0)(connection)
            inside.set()
            await stopped.wait()
            await add(1)(connection)

        transaction = asyncio.create_task(database.transaction(interrupted))
        await inside.wait()
        own_mariadb.kill()
        stopped.set()
        with pytest.raises(StoreAway):
            await transaction
        results = await asyncio.gather(*(database.read(one) for _ in range(30)), return_exceptions=True)
        assert all(isinstance(result, StoreAway) for result in results), results
        own_mariadb.start()
        assert await values(database) == [0, 0]
        await database.transaction(add(0))
        own_mariadb.stop()
        with pytest.raises(StoreAway):
            await values(database)
        own_mariadb.start()
        assert await values(database) == [1, 0]


async def test_a_mariadb_that_was_restarted_meanwhile_is_not_missed(own_mariadb: MariaServer) -> None:
    async with opened(own_mariadb.create_database("lobbyd")) as database:
        await make_rows(database)
        own_mariadb.stop()
        own_mariadb.start()
        await database.transaction(add(0))
        assert await values(database) == [1, 0]


async def test_a_mariadb_that_hangs_is_away_within_the_limit(own_mariadb: MariaServer) -> None:
    async with opened(own_mariadb.create_database("lobbyd"), pool_size=4) as database:
        await make_rows(database)
        await asyncio.gather(*(values(database) for _ in range(4)))
        own_mariadb.pause()
        async with asyncio.timeout(PATIENCE_S):
            # More than the pool holds: some wait for a connection, some for an answer, some for a greeting.
            for _ in range(2):
                results = await asyncio.gather(
                    *(database.transaction(add(0)) for _ in range(20)), return_exceptions=True
                )
                assert all(isinstance(result, StoreAway) for result in results), results
        own_mariadb.resume()
        before = (await values(database))[0]
        await asyncio.gather(*(database.transaction(add(0)) for _ in range(20)))
        assert (await values(database))[0] == before + 20


async def test_work_that_hangs_beside_a_hung_mariadb_is_cut_off_too(own_mariadb: MariaServer) -> None:
    async with opened(own_mariadb.create_database("lobbyd"), time_limit_s=1.0) as database:
        await make_rows(database)

        async def work(connection: AsyncConnection) -> None:
            await add(0)(connection)
            own_mariadb.pause()
            await asyncio.Event().wait()

        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreAway, match="no answer within"):
                await database.transaction(work)
        own_mariadb.resume()
        assert await values(database) == [0, 0]


async def test_a_cancelled_transaction_keeps_no_lock_and_spoils_no_connection(database_url: str) -> None:
    async with patient(database_url, pool_size=1) as database:
        await make_rows(database)
        inside = asyncio.Event()

        async def work(connection: AsyncConnection) -> None:
            await add(0)(connection)
            inside.set()
            await asyncio.Event().wait()

        transaction = asyncio.create_task(database.transaction(work))
        await inside.wait()
        transaction.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transaction
        await database.transaction(add(0))
        assert await values(database) == [1, 0]
