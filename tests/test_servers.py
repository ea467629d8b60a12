"""The fixtures give what their names say: the right server, empty, and able to go away and come back."""

import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, TimeoutError as RedisTimeoutError
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from tests.servers import MariaServer, Ports, RedisServer, ServerError, find_program, free_port


def connect(url: str, timeout_s: float = 5.0) -> Redis:
    return Redis.from_url(url, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))


async def query(url: str, statement: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


async def test_valkey_is_the_embedded_valkey(valkey_url: str) -> None:
    async with connect(valkey_url) as redis:
        about = await redis.info("server")
    assert about["server_name"] == "valkey"
    assert int(str(about["valkey_version"]).split(".", maxsplit=1)[0]) >= 9


async def test_redis7_is_the_system_redis(redis7_url: str) -> None:
    async with connect(redis7_url) as redis:
        about = await redis.info("server")
    assert about.get("server_name", "redis") == "redis"
    assert int(str(about["redis_version"]).split(".", maxsplit=1)[0]) >= 7


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_redis_is_empty_at_the_start_of_each_test(redis_url: str, turn: str) -> None:
    async with connect(redis_url) as redis:
        assert await redis.dbsize() == 0
        assert await redis.function_list() == []
        await redis.set("left", turn)
        await redis.function_load("#!lua name=left\nredis.register_function('left', function() return 1 end)")


async def test_redis_comes_back_with_its_data(own_redis: RedisServer) -> None:
    for end in (own_redis.stop, own_redis.kill):
        async with connect(own_redis.url) as redis:
            await redis.set("kept", end.__name__)
            end()
            with pytest.raises(RedisError):
                await redis.get("kept")
        own_redis.start()
        async with connect(own_redis.url) as redis:
            assert await redis.get("kept") == end.__name__.encode()


async def test_a_paused_redis_is_silent_until_it_is_resumed(own_redis: RedisServer) -> None:
    async with connect(own_redis.url, timeout_s=1.0) as redis:
        await redis.set("key", "value")
        own_redis.pause()
        with pytest.raises(RedisTimeoutError):
            await redis.get("key")
        own_redis.resume()
    async with connect(own_redis.url) as redis:
        assert await redis.get("key") == b"value"


async def test_mariadb_is_mariadb(mariadb_url: str) -> None:
    assert "MariaDB" in str(await query(mariadb_url, "SELECT VERSION()"))


async def test_sqlite_is_sqlite(sqlite_url: str) -> None:
    assert str(await query(sqlite_url, "SELECT sqlite_version()")).startswith("3.")


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_database_is_empty_at_the_start_of_each_test(database_url: str, turn: str) -> None:
    await query(database_url, f"CREATE TABLE turns AS SELECT '{turn}' AS turn")
    assert await query(database_url, "SELECT turn FROM turns") == turn


async def test_mariadb_comes_back_with_its_data(own_mariadb: MariaServer) -> None:
    url = own_mariadb.create_database("kept")
    await query(url, "CREATE TABLE words (word VARCHAR(20))")
    await query(url, "INSERT INTO words VALUES ('대기열')")
    own_mariadb.kill()
    with pytest.raises(OperationalError):
        await query(url, "SELECT word FROM words")
    own_mariadb.start()
    assert await query(url, "SELECT word FROM words") == "대기열"


def test_stopping_ends_a_paused_process(own_redis: RedisServer) -> None:
    process_id = own_redis.pid
    own_redis.pause()
    own_redis.stop()
    assert subprocess.run(["kill", "-0", str(process_id)], capture_output=True, check=False).returncode != 0
    with pytest.raises(ServerError, match="not running"):
        own_redis.pause()


def test_a_server_whose_port_is_taken_says_so(own_redis: RedisServer) -> None:
    rival = RedisServer(own_redis.kind, own_redis.directory / "rival", own_redis.port)
    with pytest.raises(ServerError, match="Address already in use"):
        rival.start()
    with pytest.raises(ServerError, match="not running"):
        rival.pause()


def test_a_missing_program_names_the_remedy() -> None:
    with pytest.raises(ServerError, match="scripts/test"):
        find_program("no-such-server")


def test_ports_stay_clear_of_outgoing_connections_and_of_one_another() -> None:
    ports = [free_port() for _ in range(50)]
    assert all(port < 32_768 for port in ports)
    assert len(set(ports)) == 50


def test_another_run_is_given_other_ports(tmp_path: Path) -> None:
    ours = Ports(tmp_path / "ports")
    taken = [ours.take() for _ in range(5)]
    program = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'ab') as locks:\n"
        "    fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))\n"
    )
    for port, is_free in (*((port, False) for port in taken), (19_999, True)):
        command = [sys.executable, "-c", program, str(tmp_path / "ports"), str(port)]
        assert (subprocess.run(command, capture_output=True, check=False).returncode == 0) is is_free
