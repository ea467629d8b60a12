"""TLS to the stores, by their URLs: what is verified, what is refused, and that nothing goes in the clear."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.config import ConfigError
from storage.connections import connect, connect_blocking, connect_wire
from storage.database import Database
from storage.errors import StoreAway, redis_away_is_store_away
from storage.migrations import migrate
from tests.certificates import HOST, Authority
from tests.secure_servers import SecureMaria, SecureRedis
from tests.servers import MARIADB_PASSWORD, MARIADB_USER, MariaServer

pytestmark = pytest.mark.servers

UNTRUSTED = "certificate verify failed"

Pinging = Callable[[str], Awaitable[object]]


@pytest.fixture(scope="module")
def authority(servers_folder: Path) -> Authority:
    return Authority(servers_folder / uuid.uuid4().hex)


# Redis.


@pytest.fixture(scope="module")
def redis(servers_folder: Path, authority: Authority) -> Iterator[SecureRedis]:
    server = SecureRedis(servers_folder, authority, authority.issue("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def elsewhere(servers_folder: Path, authority: Authority) -> Iterator[SecureRedis]:
    """A server whose certificate is that of another host."""
    server = SecureRedis(servers_folder, authority, authority.issue("elsewhere", hosts=("elsewhere.test",)))
    server._answers = lambda: b"Ready to accept" in server._log.read_bytes()  # type: ignore[method-assign]
    server.start()
    yield server
    server.stop()


async def ping(url: str) -> object:
    async with connect(url) as client:
        return await client.ping()


async def ping_wire(url: str) -> object:
    wire = connect_wire(url)
    try:
        return await wire.execute_command("PING")
    finally:
        await wire.aclose()


async def ping_blocking(url: str) -> object:
    wire = connect_blocking(url, 0.1)
    try:
        return await wire.execute_command("PING")
    finally:
        await wire.aclose()


every_client = pytest.mark.parametrize("pinging", [ping, ping_wire, ping_blocking])


@every_client
async def test_redis_is_reached_by_tls(redis: SecureRedis, pinging: Pinging) -> None:
    assert await pinging(redis.url) in {True, b"PONG"}


async def test_much_goes_over_one_connection_in_order(redis: SecureRedis) -> None:
    wire = connect_wire(redis.url)
    texts = [str(number) * (number % 500 + 1) for number in range(2000)]
    assert await asyncio.gather(*(wire.execute_command("ECHO", each) for each in texts)) == [
        each.encode() for each in texts
    ]
    assert await wire.execute_command("ECHO", "x" * 5_000_000) == b"x" * 5_000_000
    await wire.aclose()


async def test_a_connection_that_is_lost_is_made_again(servers_folder: Path, authority: Authority) -> None:
    server = SecureRedis(servers_folder, authority, authority.issue("restarted"))
    await asyncio.to_thread(server.start)
    try:
        wire = connect_wire(server.url)
        await wire.execute_command("PING")
        await asyncio.to_thread(server.kill)
        with pytest.raises(ConnectionError):
            await wire.execute_command("PING")
        await asyncio.to_thread(server.start)
        assert await wire.execute_command("PING") == b"PONG"
        await wire.aclose()
    finally:
        await asyncio.to_thread(server.stop)


@every_client
async def test_a_certificate_of_an_unknown_authority_is_refused(
    redis: SecureRedis, tmp_path: Path, pinging: Pinging
) -> None:
    stranger = Authority(tmp_path, "stranger")
    for query in ("", f"?ssl_ca_certs={stranger.certificate}"):
        with pytest.raises(ConnectionError, match=UNTRUSTED):
            await pinging(f"rediss://{redis.address}{query}")


@every_client
async def test_a_certificate_of_another_host_is_refused(elsewhere: SecureRedis, pinging: Pinging) -> None:
    with pytest.raises(ConnectionError, match=f"{UNTRUSTED}: IP address mismatch"):
        await pinging(elsewhere.url)


@every_client
async def test_a_url_without_tls_finds_redis_away(redis: SecureRedis, pinging: Pinging) -> None:
    for _ in range(20):
        with pytest.raises(StoreAway), redis_away_is_store_away():
            await pinging(f"redis://{redis.address}")


@every_client
async def test_a_url_that_asks_for_what_is_ours_to_say_is_refused(pinging: Pinging, tmp_path: Path) -> None:
    for query in (
        *("ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_ciphers=NULL"),
        *("retry_on_timeout=true", "socket_timeout=60", "protocol=3", "decode_responses=true"),
    ):
        with pytest.raises(ConfigError, match=rf"redis\.url: {query.partition('=')[0]}: expected one of"):
            await pinging(f"rediss://{HOST}:1/0?{query}")
    with pytest.raises(ConfigError, match=r"redis\.url: ssl_ca_certs: .*none\.crt: cannot be read: No such"):
        await pinging(f"rediss://{HOST}:1/0?ssl_ca_certs={tmp_path / 'none.crt'}")


# MariaDB.


@pytest.fixture(scope="module")
def mariadb(servers_folder: Path, mariadb_seed: Path, authority: Authority) -> Iterator[SecureMaria]:
    server = SecureMaria(servers_folder, mariadb_seed, authority, authority.issue("mariadb"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def secure_url(mariadb: SecureMaria) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    yield mariadb.create_secure_database(name)
    mariadb.drop_database(name)


async def cipher(connection: AsyncConnection) -> str:
    """What the connection is encrypted with, "" for nothing, as the server has it."""
    row = (await connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))).one()
    return str(row[1])


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def test_mariadb_is_reached_by_tls(secure_url: str) -> None:
    assert (await migrate(secure_url)).current is not None
    async with opened(secure_url) as database:
        ciphers = await asyncio.gather(*(database.read(cipher) for _ in range(10)))
    assert all(ciphers)
    async with opened(secure_url.partition("?")[0]) as plain:
        assert await plain.read(cipher) == ""


async def test_mariadb_s_certificate_of_an_unknown_authority_is_refused(
    secure_url: str, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with opened(f"{secure_url.partition('?')[0]}?ssl_ca={stranger.certificate}") as database:
        with pytest.raises(StoreAway, match=UNTRUSTED) as caught:
            await database.read(cipher)
    assert MARIADB_PASSWORD not in str(caught.value)


async def test_mariadb_s_certificate_of_another_host_is_refused(
    servers_folder: Path, mariadb_seed: Path, authority: Authority
) -> None:
    files = authority.issue("elsewhere-mariadb", hosts=("elsewhere.test",))
    server = SecureMaria(servers_folder, mariadb_seed, authority, files)
    await asyncio.to_thread(server.start)
    try:
        async with opened(server.create_secure_database("lobbyd")) as database:
            with pytest.raises(StoreAway, match=f"{UNTRUSTED}: IP address mismatch"):
                await database.read(cipher)
    finally:
        await asyncio.to_thread(server.stop)


async def test_who_says_that_there_is_no_tls_hears_no_password(
    shared_mariadb: MariaServer, authority: Authority
) -> None:
    """Whoever stands between changes one bit of the server's first words."""
    heard = bytearray()

    async def stand_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, shared_mariadb.port)
        writer.write(await server_reader.read(4096))  # the greeting of a server without TLS
        while data := await reader.read(4096):
            heard.extend(data)
        server_writer.close()
        writer.close()

    async with await asyncio.start_server(stand_between, HOST, 0) as between:
        port = between.sockets[0].getsockname()[1]
        account = f"{MARIADB_USER}:{MARIADB_PASSWORD}@{HOST}:{port}"
        url = f"mysql+aiomysql://{account}/lobbyd?ssl_ca={authority.certificate}"
        async with opened(url) as database:
            with pytest.raises(StoreAway, match="the server offers none"):
                await database.read(cipher)
    assert heard == b""


async def test_a_server_that_asks_who_comes_is_shown_a_certificate(
    mariadb: SecureMaria, authority: Authority
) -> None:
    mariadb.do("CREATE USER IF NOT EXISTS 'known'@'%' IDENTIFIED BY 'known' REQUIRE X509")
    ours = authority.issue("worker")
    account = f"known:known@{HOST}:{mariadb.port}"
    url = f"mysql+aiomysql://{account}/information_schema?ssl_ca={authority.certificate}"
    async with opened(f"{url}&ssl_cert={ours.certificate}&ssl_key={ours.key}") as database:
        assert await database.read(cipher)
    async with opened(url) as database:
        with pytest.raises(Exception, match="Access denied"):
            await database.read(cipher)


def test_a_database_url_that_cannot_be_used_is_told(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    locked = authority.issue("locked-worker", passphrase=b"hunter2")
    ca = f"ssl_ca={authority.certificate}"
    for query, wanted in (
        (f"ssl_ca={tmp_path / 'none'}", "ssl_ca: .*none: cannot be used: No such file"),
        (f"ssl_ca={tmp_path / 'text'}", "ssl_ca: .*text: cannot be used"),
        (f"{ca}&ssl_cert={locked.certificate}", "got ssl_ca, ssl_cert"),
        (f"{ca}&ssl_cert={locked.certificate}&ssl_key={locked.key}", "cannot be used"),
        (f"{ca}&ssl_check_hostname=false", "got ssl_ca, ssl_check_hostname"),
        ("ssl=true", "got ssl"),
    ):
        with pytest.raises(ConfigError, match=rf"^database\.url: .*{wanted}"):
            Database(f"mysql+aiomysql://u:hunter2@{HOST}:1/lobbyd?{query}")
