"""A system that is up: what it says of itself, and how it gets over the death of its parts."""

import contextlib
import os
import re
import signal
import stat

import psutil
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.commands.running import Running, lobbyctl, wait_until
from workers.__main__ import KINDS

pytestmark = pytest.mark.servers

PROCESSES = {"redis", *(f"{kind}-1" for kind in KINDS), "login-2", "SOCK001", "SOCK002"}


def test_it_says_once_where_each_node_is_ready(system: Running) -> None:
    said = re.findall(r"^(SOCK\d+) READY on (.+)$", system.stdout, re.MULTILINE)
    assert sorted(said) == sorted(system.endpoints["sockets"].items())
    assert {name for name, _ in said} == {"SOCK001", "SOCK002"}


def test_endpoints_name_everything_that_runs(system: Running) -> None:
    found = system.endpoints
    assert set(found) == {"sockets", "redis", "database", "pids"}
    assert set(found["pids"]) == PROCESSES
    assert all(psutil.Process(pid).ppid() == system.process.pid for pid in found["pids"].values())
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", where) for where in found["sockets"].values())
    assert found["database"] == f"sqlite+aiosqlite:///{system.data / 'lobbyd.sqlite3'}"
    with Redis.from_url(found["redis"]) as redis:
        about = redis.info("server")
    assert isinstance(about, dict)
    assert about["process_id"] == found["pids"]["redis"]


def test_redis_asks_for_its_password(system: Running) -> None:
    url = re.sub("//.*@", "//", system.endpoints["redis"])
    with Redis.from_url(url) as redis, pytest.raises(AuthenticationError):
        redis.ping()


def test_nobody_else_may_read_the_data(system: Running) -> None:
    modes = {}
    for path in (system.data, *system.data.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # written under another name, and renamed meanwhile
            modes[path] = path.stat().st_mode
    assert {oct(stat.S_IMODE(mode)) for mode in modes.values() if stat.S_ISDIR(mode)} == {"0o700"}
    assert {oct(stat.S_IMODE(mode)) for mode in modes.values() if stat.S_ISREG(mode)} <= {"0o600", "0o400"}


def test_no_secret_is_on_a_command_line(system: Running) -> None:
    secrets = [(system.data / name).read_text().strip() for name in ("redis.password", "secret.key")]
    for pid in (system.process.pid, *system.pids.values()):
        command = " ".join(psutil.Process(pid).cmdline())
        assert command
        assert not any(secret in command for secret in secrets)


def test_status_as_json(system: Running) -> None:
    found = system.status()
    servers = {server["serverId"]: server for server in found["servers"]}
    assert set(servers) == PROCESSES - {"redis"}
    assert {server["statusCode"] for server in servers.values()} == {"READY"}
    assert servers["SOCK002"]["serverType"] == "SOCKET"
    assert servers["SOCK002"]["port"] == system.endpoints["sockets"]["SOCK002"].rpartition(":")[2]
    queues = {queue["queueId"]: queue for queue in found["queues"]}
    assert {"SOCK001_Q", "SOCK002_Q", "status_queue", "login_queue:high"} <= set(queues)
    assert set(queues["SOCK001_Q"]) == {
        *("queueId", "queueType", "length", "pending", "consumers", "oldestAgeSec", "maxSize")
    }
    assert set(found["admission"]) == {
        *("waiting", "ready", "consumed", "cancelled", "expired", "issued", "totalRate", "avgWaitSec"),
        *("estimateErrorSec", "outflow"),
    }
    assert found["admission"]["totalRate"] == 600


def test_status_for_people(system: Running) -> None:
    done = lobbyctl("status", "--data-dir", str(system.data), folder=system.folder)
    assert done.returncode == 0
    assert all(name in done.stdout for name in PROCESSES - {"redis"})
    assert "600 are admitted a minute" in done.stdout


def test_status_by_a_file_of_settings(system: Running) -> None:
    settings = system.folder / "settings.toml"
    settings.write_text(f'[redis]\nurl = "{system.endpoints["redis"]}"\n')
    done = lobbyctl("status", "--json", "--config", str(settings), folder=system.folder)
    assert '"SOCK001"' in done.stdout


def test_a_second_one_on_the_same_data_is_refused(system: Running) -> None:
    done = lobbyctl("up", "--no-demo", "--port", "0", "--data-dir", str(system.data), folder=system.folder)
    assert done.returncode == 3
    assert f"as process {system.process.pid}" in done.stderr
    assert done.stdout == ""
    assert set(system.pids) == PROCESSES


@pytest.mark.parametrize("process_id", ["SOCK001", "login-1", "status-1"])
def test_a_killed_process_comes_back(system: Running, process_id: str) -> None:
    before = system.endpoints
    os.kill(before["pids"][process_id], signal.SIGKILL)
    pid = system.wait_until_restarted(process_id, before["pids"][process_id])
    after = system.endpoints
    assert after["pids"] == {**before["pids"], process_id: pid}
    assert after["sockets"] == before["sockets"]
    assert f"{process_id} was ended by SIGKILL" in system.stdout
    system.wait_for(f"{process_id} is back")


def test_a_killed_redis_comes_back_with_its_data(system: Running) -> None:
    before = system.endpoints
    with Redis.from_url(before["redis"]) as redis:
        redis.set("kept", "yes")
    os.kill(before["pids"]["redis"], signal.SIGKILL)
    system.wait_for("redis is back")
    assert system.endpoints["redis"] == before["redis"]
    assert system.pids["redis"] != before["pids"]["redis"]
    with Redis.from_url(before["redis"]) as redis:
        assert redis.get("kept") == b"yes"
    wait_until(
        lambda: all(system.is_ready(name, system.pids[name]) for name in PROCESSES - {"redis"}),
        "everything is READY on the new Redis",
    )
