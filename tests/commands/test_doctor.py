"""`lobbyctl doctor` on installations that are well, and on ones that are not."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from storage import keys
from tests.certificates import Authority
from tests.commands.running import UP, Running, lobbyctl

pytestmark = pytest.mark.servers


def examined(running: Running, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and what was found by what was looked at."""
    done = lobbyctl("doctor", "--json", "--data-dir", str(running.data), *options, folder=running.folder)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    return done.returncode, {each["check"]: each for each in found["found"]}


def wrong(found: dict[str, dict[str, str]]) -> set[str]:
    for each in found.values():
        assert bool(each["do"]) == (each["state"] != "ok"), each
    return {check for check, each in found.items() if each["state"] == "wrong"}


def test_what_is_wrong_is_found_and_said_with_what_to_do(tmp_path: Path) -> None:
    files = Authority(tmp_path / "ca").issue("SOCK001", days=(-1, 20))
    files.key.chmod(0o600)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[socketd]\ntls_certificate = "{files.certificate}"\ntls_key = "{files.key}"\n')
    running = Running(tmp_path, "--no-demo", "--port", "0", "--config", str(settings))
    try:
        running.wait_for(UP)
        code, found = examined(running, "--config", str(settings))
        assert (code, wrong(found)) == (0, set()), found
        assert (found["port SOCK001"]["state"], "reload" in found["port SOCK001"]["do"]) == ("warning", True)
        stores = {"redis", "redis persistence", "redis memory", "clock", "database", "secret"}
        assert {*stores, "queues", "files"} <= set(found)
        assert {"processes status", "processes login", "processes socket", "port SOCK001"} <= set(found)
        assert {f"disk {running.data}", "secret files"} <= set(found)
        said = lobbyctl("doctor", "--data-dir", str(running.data), folder=running.folder)
        assert "Nothing is wrong." in said.stdout

        login, ranking = (psutil.Process(running.pids[name]) for name in ("login-1", "ranking-1"))
        login.rlimit(psutil.RLIMIT_NOFILE, (2_000, 2_000))
        ranking.rlimit(psutil.RLIMIT_NOFILE, (ranking.num_fds() + 2,) * 2)
        done = lobbyctl("drain", "portal-1", "--yes", "--data-dir", str(running.data), folder=running.folder)
        assert done.returncode == 0, done.stderr
        break_things(running)
        code, found = examined(running)
        assert code == 1
        assert found["files login-1"]["state"] == "warning"
        assert "2,000 files" in found["files login-1"]["what"]
        assert "LimitNOFILE" in found["files ranking-1"]["do"]
        assert "python -m workers portal" in found["processes portal"]["do"]
        assert "no reader" in found["queue:lost_queue"]["what"]
        assert wrong(found) == {
            "secret", "redis memory", "redis persistence", "server:SOCK009", "port SOCK008",
            "dead:ranking_queue:low", "queue:lost_queue", "files ranking-1", "processes portal",
        }  # fmt: skip
        assert found["secret"]["what"].startswith("this database was begun with another master secret")
        assert "noeviction" in found["redis memory"]["do"]
        said = lobbyctl("doctor", "--data-dir", str(running.data), folder=running.folder)
        assert said.returncode == 1
        assert "9 of " in said.stdout

        running.end()
        code, found = examined(running)
        assert (code, wrong(found)) == (1, {"system"})
    finally:
        running.clean_up()


def break_things(running: Running) -> None:
    (running.data / "secret.key").chmod(0o600)
    (running.data / "secret.key").write_text("another secret that is long enough for anybody")
    with Redis.from_url(running.endpoints["redis"]) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("appendonly", "no")
        for name, state in (("SOCK009", "DOWN"), ("SOCK008", "READY")):
            fields: Any = {"serverType": "SOCKET", "statusCode": state, "host": "127.0.0.1", "port": 9}
            redis.sadd(keys.SERVER_IDS, name)
            redis.hset(keys.server_status(name), mapping={**fields, "lastHeartbeat": 4_102_444_800_000})
        redis.xadd(keys.dead_letters("ranking_queue:low"), {"m": b"\xc1"})
        redis.sadd(keys.QUEUE_IDS, "lost_queue")
        redis.hset(keys.queue_meta("lost_queue"), mapping={"queueType": "request", "maxSize": 9})
        redis.xgroup_create("lost_queue", "lobbyd", "0", mkstream=True)
        redis.xadd("lost_queue", {"m": b"\xc1"}, id="1734480000000-0")
