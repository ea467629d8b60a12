"""`lobbyctl keys` on a system that is up: a new key for all that is stored, while players come."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from client import Player
from storage.keys import AUDIT_LOGS
from tests.commands.running import CHEAP, LOBBYCTL, PATIENCE_S, UP, Running, environment, lobbyctl, wait_until

pytestmark = pytest.mark.servers

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = ("--set", "limits.registrations_per_ip_per_hour=100000")
    folder = tmp_path_factory.mktemp("keys")
    running = Running(folder, "--no-demo", "--workers", "login=2", *CHEAP, *limits)
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.clean_up()


def keys(running: Running, *words: str) -> dict[str, Any]:
    """What `lobbyctl keys` says as JSON, to an operator who came by sudo."""
    done = subprocess.run(
        [LOBBYCTL, "keys", *words, "--json", "--data-dir", str(running.data)],
        cwd=running.folder,
        env={**environment(), "SUDO_USER": "kim"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def encrypts(running: Running) -> list[int]:
    """How much each key encrypts, oldest first."""
    return [key["encrypts"] for key in keys(running, "list")["keys"]]


async def comers(running: Running, prefix: str, stop: asyncio.Event) -> int:
    """Register one after the other, and see each account found again; how many."""
    host, port = running.endpoints["sockets"]["SOCK001"].rsplit(":", 1)
    made = 0
    async with Player([(host, int(port))]) as player:
        while not stop.is_set():
            name = f"{prefix}{made}"
            await player.register(name, PASSWORD, f"{name}@example.com", name)
            await player.login(name, PASSWORD)
            made += 1
    return made


async def come(running: Running, prefix: str, for_s: float) -> int:
    stop = asyncio.Event()
    coming = asyncio.create_task(comers(running, prefix, stop))
    await asyncio.sleep(for_s)
    stop.set()
    return await coming


async def test_a_new_key_is_used_by_all_without_a_restart(running: Running) -> None:
    before = await come(running, "early", 0.5)
    pids = running.pids
    assert encrypts(running) == [before]
    stop = asyncio.Event()
    coming = asyncio.create_task(comers(running, "during", stop))

    rotated = await asyncio.to_thread(keys, running, "rotate")

    during_ended = asyncio.create_task(come(running, "late", 0.5))
    late = await during_ended
    stop.set()
    during = await coming
    assert before > 0
    assert during > 0
    assert late > 0
    first, second = (await asyncio.to_thread(keys, running, "list"))["keys"]
    assert (first["current"], first["createdBy"]) == (False, "lobbyd")
    assert (second["current"], second["createdBy"], second["keyId"]) == (True, "kim", rotated["keyId"])
    assert rotated["changed"] >= before
    assert (first["encrypts"], second["encrypts"]) == (0, before + during + late)
    assert running.pids == pids
    with Redis.from_url(running.endpoints["redis"], decode_responses=True) as redis:
        audited: Any = redis.lrange(AUDIT_LOGS, 0, 0)
    assert audited[0].partition("|")[2] == "kim|keys:rotate|encryption_keys|ALLOWED|lobbyctl"
    for process in ("login-1", "login-2"):
        log = running.data / "logs" / f"{process}.log"
        wait_until(partial(_says, log, rotated["keyId"]), f"{process} uses the new key")


def _says(log: Path, text: str) -> bool:
    return text in log.read_text()


async def test_a_rotation_that_was_cut_short_is_finished_by_reencrypt(running: Running) -> None:
    total = sum(encrypts(running)) + await come(running, "more", 0.2)
    rotating = subprocess.Popen(
        [LOBBYCTL, "keys", "rotate", "--data-dir", str(running.data)],
        cwd=running.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert rotating.stderr is not None
    rotating.stderr.readline()  # the key is made; nothing is encrypted with it yet
    os.kill(rotating.pid, signal.SIGKILL)
    rotating.wait()
    rotating.stderr.close()
    assert encrypts(running)[-1] == 0

    done = keys(running, "reencrypt")

    assert (done["seen"], done["changed"], done["undecipherable"]) == (total, total, [])
    assert encrypts(running)[-1] == total


def test_people_read_it_too(running: Running) -> None:
    shown = lobbyctl("keys", "list", "--data-dir", str(running.data), folder=running.folder)
    assert shown.returncode == 0, shown.stderr
    *old, current = shown.stdout.splitlines()
    assert all(" old " in line for line in old)
    assert " current " in current
    assert shown.stderr == ""
    again = lobbyctl("keys", "reencrypt", "--data-dir", str(running.data), folder=running.folder)
    assert "encrypted 0 again" in again.stdout


def test_another_master_secret_is_refused(running: Running) -> None:
    for words in (("list",), ("rotate",), ("reencrypt",)):
        done = subprocess.run(
            [LOBBYCTL, "keys", *words, "--data-dir", str(running.data)],
            cwd=running.folder,
            env={**environment(), "LOBBYD_AUTH__SECRET": "that of another system altogether"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 1
        assert "another master secret" in done.stderr
        assert "Traceback" not in done.stderr


def test_where_nothing_runs(running: Running) -> None:
    done = lobbyctl("keys", "list", "--data-dir", str(running.folder / "nowhere"), folder=running.folder)
    assert done.returncode == 1
    assert "Nothing runs" in done.stderr
