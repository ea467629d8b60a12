"""How `lobbyctl up` starts, ends, and starts again: whole lives of real processes."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from client import Player
from tests.commands.conftest import Start
from tests.commands.running import (
    CHEAP,
    LOBBYCTL,
    PATIENCE_S,
    UP,
    Running,
    environment,
    lives,
    lobbyctl,
    wait_until,
)
from workers.__main__ import KINDS

pytestmark = pytest.mark.servers

PASSWORD = "정말 긴 비밀번호"


def endpoint(running: Running, node: str = "SOCK001") -> tuple[str, int]:
    host, _, port = running.endpoints["sockets"][node].rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(start: Start, number: signal.Signals) -> None:
    running = start("--no-demo", *CHEAP)
    running.wait_for(UP)
    workers = [f"{kind}-1" for kind in sorted(KINDS) if kind != "status"]
    assert set(running.pids) == {"redis", "status-1", *workers, "SOCK001"}
    assert running.end(number) == 0
    assert running.left() == set()
    assert not (running.data / "endpoints.json").exists()
    stopped = [line.split()[0] for line in running.stdout.splitlines() if line.endswith("has stopped")]
    assert [name for name in stopped if name not in workers] == ["SOCK001", "status-1", "redis"]
    assert sorted(stopped[1:-2]) == workers
    assert running.stderr == ""


def test_a_signal_while_it_starts_stops_what_was_started(start: Start) -> None:
    running = start("--no-demo", *CHEAP)
    running.wait_for("redis is ready")
    assert running.end() == 0
    assert "redis has stopped" in running.stdout
    assert not (running.data / "endpoints.json").exists()


def test_a_second_signal_stops_at_once(start: Start) -> None:
    running = start("--no-demo", *CHEAP)
    running.wait_for(UP)
    # A process that does not listen would be waited for.
    os.kill(running.pids["SOCK001"], signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    running.wait_for("Stopping")
    assert running.end() == 128 + signal.SIGTERM
    wait_until(lambda: not running.left(), "everything is gone")


def test_what_it_started_is_told_to_programs_and_ends_when_it_is_killed(start: Start) -> None:
    running = start("--no-demo", "--json", *CHEAP)
    running.wait_for("}\n")
    said = json.loads(running.stdout)
    workers = [f"{kind}-1" for kind in sorted(KINDS) if kind != "status"]
    assert set(said["pids"]) == {"redis", "status-1", *workers, "SOCK001"}
    assert said == {
        "dataDir": str(running.data),
        "pids": running.pids,
        "sockets": running.endpoints["sockets"],
    }
    assert "SOCK001 READY on" in running.stderr
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not running.left(), "everything is gone")
    done = lobbyctl("status", "--data-dir", str(running.data), folder=running.folder)
    told = f"Nothing runs in {running.data} any more: it was killed. Start it again with `lobbyctl up`.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_a_start_waits_for_what_a_killed_one_left(start: Start) -> None:
    running = start("--no-demo", *CHEAP)
    running.wait_for(UP)
    pids = dict(running.pids)
    redis = pids.pop("redis")
    os.kill(redis, signal.SIGSTOP)
    running.end(signal.SIGKILL)
    again = start("--no-demo", *CHEAP)
    again.wait_for("Waiting for what a killed")
    # Until nothing is left of them, not even in the table of processes.
    wait_until(lambda: not any(map(psutil.pid_exists, pids.values())), "the others end")
    os.kill(redis, signal.SIGCONT)
    again.wait_for(UP)
    assert not lives(redis)
    assert redis not in again.pids.values()


def test_a_file_that_cannot_be_written_costs_no_process(start: Start) -> None:
    running = start("--no-demo", *CHEAP)
    running.wait_for(UP)
    before = running.pids["SOCK001"]
    (running.data / ".endpoints.json.draft").mkdir()
    os.kill(before, signal.SIGKILL)
    running.wait_for("endpoints.json cannot be written")
    running.wait_for("SOCK001 is back")
    started = running.server("SOCK001")["pid"]
    assert running.is_ready("SOCK001", int(started))
    assert running.end() == 0
    wait_until(lambda: not lives(int(started)), "nothing that was started is left")


async def test_a_second_start_finds_accounts_and_tickets(start: Start) -> None:
    options = ("--no-demo", *CHEAP, "--set", "login.admit_rate=1", "--set", "login.pod_count=1")
    running = start(*options)
    running.wait_for(UP)
    async with Player([endpoint(running)]) as first, Player([endpoint(running)]) as second:
        for name, player in (("bora", first), ("minjun", second)):
            await player.register(name, PASSWORD, f"{name}@example.com", name)
        await first.sign_in("bora", PASSWORD)
        place = await second.login("minjun", PASSWORD)
    assert running.end() == 0
    again = start(*options)
    again.wait_for(UP)
    async with Player([endpoint(again)]) as second:
        assert (await second.login("minjun", PASSWORD)).tid == place.tid
    assert again.status()["admission"]["issued"] == 2


def test_output_that_nobody_reads_is_no_reason_to_end(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = subprocess.Popen(
        [LOBBYCTL, "up", "--no-demo", *CHEAP, "--data-dir", str(data)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        while b"READY" not in process.stdout.readline():
            pass
        process.stdout.close()
        pid = json.loads((data / "endpoints.json").read_text())["pids"]["SOCK001"]
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: json.loads((data / "endpoints.json").read_text())["pids"]["SOCK001"] != pid, "a new pid"
        )
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "login.admit_rte=5"), "login.admit_rte: unknown; did you mean login.admit_rate?"),
        (
            ("--workers", "cook=1"),
            "--workers cook=1: expected KIND=N, with KIND one of " + ", ".join(sorted(KINDS)),
        ),
        (("--workers", "login=many"), "--workers login=many: expected login=N, with N from 0 to 64"),
        (("--workers", "status=0"), "--workers status=0: at least one must keep"),
        (("--port", "65535", "--nodes", "2"), "--port 65535: 2 nodes would need ports up to 65536"),
        (("--dry-run",), "--dry-run: tells what --autoscale would do; give both"),
        (("--set", "auth.secret=short"), "auth.secret: expected at least 32 characters, got 5"),
        (("--config", "missing.toml"), "missing.toml: cannot be read"),
        (("--set", "redis.url=redis://127.0.0.1:door"), "redis.url: "),
    ],
)
def test_a_wrong_setting_is_told_in_a_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    done = lobbyctl("up", "--no-demo", "--data-dir", "data", *options, folder=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "is ready" not in done.stdout


def test_a_wrong_file_of_settings_is_found_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[login]\nadmit_rate = 'many'\n")
    done = lobbyctl("up", "--no-demo", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == 'config.toml: login.admit_rate: expected an integer of at least 1, got "many"\n'
    assert not (tmp_path / ".lobbyd").exists()


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = lobbyctl("up", "--no-demo", "--port", str(port), "--data-dir", "data", folder=tmp_path)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}: a node cannot listen there: Address already in use" in done.stderr


def test_a_worker_that_cannot_start_stops_everything_with_its_words(start: Start) -> None:
    running = start("--no-demo", *CHEAP, "--set", "database.url=mysql+aiomysql://me:hidden@127.0.0.1:1/none")
    assert running.exit_code() == 1
    assert "-1 never became ready: it ended with exit code 1, 2 times" in running.stderr
    assert "database: StoreAway" in running.stderr
    assert "hidden" not in running.stderr + running.stdout
    assert "redis has stopped" in running.stdout


def test_a_name_that_is_taken_stops_everything_with_the_owner_named(start: Start, valkey_url: str) -> None:
    theirs = start("--no-demo", *CHEAP, "--set", f"redis.url={valkey_url}")
    theirs.wait_for(UP)
    assert set(theirs.pids) == {*(f"{kind}-1" for kind in KINDS), "SOCK001"}
    other = start("--no-demo", *CHEAP, "--set", f"redis.url={valkey_url}", "--data-dir", "other")
    assert other.exit_code() == 3
    refusal = re.search(r"(\S+) is alive already: process (\d+)", other.stderr)
    assert refusal is not None, other.stderr
    assert theirs.pids[refusal[1]] == int(refusal[2])
    assert theirs.end() == 0


def test_nothing_to_show_where_nothing_runs(tmp_path: Path) -> None:
    done = lobbyctl("status", "--json", folder=tmp_path)
    assert done.returncode == 1
    assert f"Nothing runs in {tmp_path / '.lobbyd'}" in done.stderr
    assert done.stdout == ""


def test_of_a_system_that_was_killed_it_is_said_that_it_was(start: Start, tmp_path: Path) -> None:
    running = start("--no-demo", *CHEAP)
    running.wait_for(UP)
    password = (running.data / "redis.password").read_text().strip()
    assert running.pids
    running.end(signal.SIGKILL)
    wait_until(lambda: not running.left(), "everything is gone")
    done = lobbyctl("status", "--data-dir", str(running.data), folder=tmp_path)
    assert done.returncode == 1
    assert "any more: it was killed" in done.stderr
    assert password not in done.stderr
