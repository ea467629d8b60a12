"""What `lobbyctl doctor` says of one thing that is wrong, which each test makes wrong."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from redis import Redis
from sqlalchemy import Connection, text

from runtime.settings import MonitoringSettings
from scripts.commands.doctor import doctor
from scripts.commands.doctor_system import WHAT_TO_DO
from storage import keys, migrations
from storage.database import Database
from tests.certificates import Authority
from tests.commands.running import LOBBYCTL, PATIENCE_S, environment, lobbyctl
from tests.servers import HOST, RedisServer, free_port
from tests.workers.operations import making
from workers.operations.thresholds import findings

SECRET = "a master secret that only the tests know"

WITH_A_CLOCK_AHEAD = """
import sys, time
real = time.time
time.time = lambda: real() + 3.0
from scripts.commands.main import main
sys.argv[0] = "lobbyctl"
main()
"""

Found = dict[str, Any]


class Installation:
    """Stores, a file of settings and no process of lobbyd."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self.folder = folder
        self.settings = {"redis.url": redis_url, "database.url": database_url}
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.settings["auth.secret_file"] = str(self.secret)

    @property
    def file(self) -> Path:
        """Its settings, written anew."""
        path = self.folder / "settings.toml"
        names = [name.split(".") for name in self.settings]
        texts = self.settings.values()
        lines = (
            f"[{section}]\n{key} = {json.dumps(value)}\n"
            for (section, key), value in zip(names, texts, strict=True)
        )
        path.write_text("".join(lines))
        path.chmod(0o600)
        return path

    async def examined(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Found]:
        """What is found, by what was looked at; the exit code fits."""
        code = await doctor(self.folder / "nothing", self.file, as_json=True)
        said = json.loads(capsys.readouterr().out)
        found: list[Found] = said["found"]
        assert said["ok"] == (code == 0) == all(each["state"] != "wrong" for each in found)
        assert all(bool(each["do"]) == (each["state"] != "ok") for each in found)
        return {each["check"]: each for each in found}


@pytest.fixture
def installation(tmp_path: Path, valkey_url: str, sqlite_url: str) -> Installation:
    return Installation(tmp_path, valkey_url, sqlite_url)


Captured = pytest.CaptureFixture[str]


async def test_a_redis_that_is_away(installation: Installation, capsys: Captured) -> None:
    installation.settings["redis.url"] = f"redis://:hidden@{HOST}:{free_port()}/0"
    found = (await installation.examined(capsys))["redis"]
    assert found["state"] == "wrong"
    assert "hidden" not in found["what"]
    assert "correct redis.url" in found["do"]


@pytest.mark.servers
async def test_a_redis_that_is_a_replica_throws_away_and_writes_nothing_down(
    tmp_path: Path, own_redis: RedisServer, valkey_url: str, sqlite_url: str, capsys: Captured
) -> None:
    installation = Installation(tmp_path, own_redis.url, sqlite_url)
    with Redis.from_url(own_redis.url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("appendonly", "no")
        redis.replicaof(HOST, 9)
        found = await installation.examined(capsys)
        assert found["redis persistence"]["state"] == "wrong"
        assert "appendonly yes" in found["redis persistence"]["do"]
        assert (found["redis memory"]["state"], found["redis role"]["state"]) == ("wrong", "wrong")
        assert "noeviction" in found["redis memory"]["do"]
        assert f"replica of {HOST}:9" in found["redis role"]["what"]
        redis.replicaof("NO", "ONE")
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("appendonly", "yes")
        used: Any = redis.info("memory")
        redis.config_set("maxmemory", int(used["used_memory"] * 1.1))
        found = await installation.examined(capsys)
        assert found["redis persistence"]["state"] == "ok"
        assert "redis role" not in found
        assert "of maxmemory are used" in found["redis memory"]["what"]
        redis.config_set("appendonly", "no")  # it would not end while it begins to write down


async def test_a_database_that_is_away(installation: Installation, capsys: Captured) -> None:
    installation.settings["database.url"] = f"mysql+aiomysql://lobbyd:hidden@{HOST}:{free_port()}/lobbyd"
    found = await installation.examined(capsys)
    assert found["database"]["state"] == "wrong"
    assert "correct database.url" in found["database"]["do"]
    assert (found["secret"]["state"], "cannot be compared" in found["secret"]["what"]) == ("warning", True)
    assert "hidden" not in json.dumps(found)


async def test_a_database_that_is_not_there_is_not_made(installation: Installation, capsys: Captured) -> None:
    found = await installation.examined(capsys)
    assert "there is no " in found["database"]["what"]
    assert not list(installation.folder.glob("*.sqlite3"))


@pytest.mark.parametrize(
    ("current", "state", "to_do"),
    [("0006", "wrong", "which migrates"), ("9999", "wrong", "Upgrade this machine"), (None, "ok", "")],
)
async def test_a_schema_of_another_release(
    installation: Installation, sqlite_url: str, capsys: Captured, current: str | None, state: str, to_do: str
) -> None:
    if current == "0006":
        await migrate_to(sqlite_url, current)
    else:
        await migrations.migrate(sqlite_url)
    if current == "9999":
        await executed(sqlite_url, "UPDATE alembic_version SET version_num = '9999'")
    found = (await installation.examined(capsys))["database"]
    assert found["state"] == state
    assert to_do in found["do"]
    assert current is None or current in found["what"]


async def migrate_to(url: str, revision: str) -> None:
    """Make a database as an earlier release left it."""

    def upgrade(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        command.upgrade(config, revision)

    database = Database(url, time_limit_s=30.0)
    await database.transaction(lambda connection: connection.run_sync(upgrade))
    await database.close()


async def executed(url: str, statement: str) -> None:
    database = Database(url)
    await database.transaction(lambda connection: connection.execute(text(statement)))
    await database.close()


def test_a_clock_that_is_off(installation: Installation) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_CLOCK_AHEAD, "doctor", "--json", "--config", str(installation.file)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    found = {each["check"]: each for each in json.loads(done.stdout)["found"]}["clock"]
    assert found["state"] == "wrong"
    assert "s behind this machine's" in found["what"]
    assert "timedatectl" in found["do"]


@pytest.mark.parametrize(
    ("days", "state", "says"),
    [
        ((-9, -1), "wrong", "has expired at"),
        ((-9, 6), "wrong", "good until"),
        ((-9, 29), "warning", "good until"),
        ((-9, 31), "ok", "good until"),
    ],
)
async def test_a_certificate_that_ends(
    installation: Installation,
    valkey_url: str,
    capsys: Captured,
    days: tuple[int, int],
    state: str,
    says: str,
) -> None:
    files = Authority(installation.folder / "ca").issue("SOCK001", days=days)
    installation.settings["socketd.tls_certificate"] = str(files.certificate)
    async with listening(files.certificate, files.key) as port:
        with Redis.from_url(valkey_url) as redis:
            fields = {"serverType": "SOCKET", "statusCode": "READY", "host": HOST, "port": port}
            redis.sadd(keys.SERVER_IDS, "SOCK001")
            redis.hset(keys.server_status("SOCK001"), mapping=fields)
        found = (await installation.examined(capsys))["port SOCK001"]
    assert found["state"] == state
    assert says in found["what"]


@asynccontextmanager
async def listening(certificate: Path, key: Path) -> AsyncIterator[int]:
    """A TLS server; the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("mode", "is_wrong"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)])
async def test_secrets_that_others_may_read(
    installation: Installation, capsys: Captured, mode: int, is_wrong: bool
) -> None:
    installation.secret.chmod(mode)
    found = await installation.examined(capsys)
    assert (f"file {installation.secret}" in found) == is_wrong
    if is_wrong:
        assert found[f"file {installation.secret}"]["do"].startswith(f"`chmod 600 {installation.secret}`")


@pytest.mark.parametrize(
    ("name", "url"),
    [("redis.url", f"redis://:hidden@{HOST}:9/0"), ("portal.smtp_url", "smtp://kim:hidden@mail.example")],
)
async def test_a_file_of_settings_that_holds_a_secret_is_one_of_them(
    installation: Installation, capsys: Captured, name: str, url: str
) -> None:
    installation.settings[name] = url
    installation.file.chmod(0o604)
    path = installation.folder / "settings.toml"
    await doctor(installation.folder, path, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert f"file {path}" in {each["check"] for each in said["found"]}


def test_of_whatever_operations_warns_it_says_what_to_do() -> None:
    all_wrong = making.sample(
        making.server("A", status_code="DOWN"),
        making.server("B", errors=500, latency_p99_ms=9e9),
        making.queue(length=1000, dead_letters=1),
        making.admission(waiting=1, estimate_error_sec=1e6),
        redis_memory_bytes=2**60,
    )
    found = findings(all_wrong, MonitoringSettings(), silence_s=10)
    kinds = {each.subject.partition(":")[0] for each in found}
    assert kinds == {"server", "latency", "queue", "dead", "errors", "estimates", "redis"}
    assert kinds <= set(WHAT_TO_DO)


def test_a_secret_that_is_not_there(installation: Installation) -> None:
    installation.secret.unlink()
    done = lobbyctl("doctor", "--config", str(installation.file), folder=installation.folder)
    assert done.returncode == 1
    assert "give every machine the same" in " ".join(done.stdout.split())


def test_a_disk_that_is_full(installation: Installation) -> None:
    disk = installation.folder / "disk"
    disk.mkdir()
    installation.settings["portal.storage_url"] = str(disk)
    look = f"{LOBBYCTL} doctor --json --config {installation.file}"
    # A file system of its own, that only this process and its children see.
    script = (
        f"mount -t tmpfs -o size=100m none {disk} || exit 77\n"
        f"{look} > before; fallocate -l 80M {disk}/file; {look} > after; exit 0"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=installation.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr}")

    def state(name: str) -> Found:
        said = json.loads((installation.folder / name).read_text())
        found: dict[str, Found] = {each["check"]: each for each in said["found"]}
        return found[f"disk {disk}"]

    assert state("before")["state"] == "ok"
    assert (state("after")["state"], "Make room" in state("after")["do"]) == ("wrong", True)
