"""The demo: a crowd comes in and stays, on a terminal and without one."""

import os
import pty
import re
import signal
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.commands.conftest import Start
from tests.commands.running import CHEAP, LOBBYCTL, PATIENCE_S, UP, environment, wait_until

pytestmark = pytest.mark.servers

QUICK = ("--demo", "20", *CHEAP, "--set", "login.admit_rate=6000")
ROWS, COLUMNS = 24, 80


def test_a_crowd_comes_in_twice_and_stays(start: Start) -> None:
    running = start(*QUICK, "--nodes", "2")
    running.wait_for(UP)
    assert re.search(r"players signed in +20 of 20\b", running.stdout)
    assert "turned away" not in running.stdout
    assert re.search(r"wait of PREMIUM players, average +\d+\.\d s", running.stdout)
    assert re.search(r"^players log in with passwords, \d+ s: .*20 on the way", running.stdout, re.MULTILINE)
    admission = running.status()["admission"]
    assert (admission["issued"], admission["consumed"]) == (40, 40)
    wait_until(
        lambda: sum(int(running.server(node)["connections"]) for node in ("SOCK001", "SOCK002")) == 20,
        "both nodes report 20 connections",
    )
    assert running.end() == 0


def test_a_crowd_finds_its_accounts_at_a_second_start(start: Start) -> None:
    for _ in range(2):
        running = start(*QUICK)
        running.wait_for(UP)
        assert re.search(r"players signed in +20 of 20\b", running.stdout)
        assert running.end() == 0


def test_a_crowd_comes_by_tls_where_it_is_set_up(start: Start, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "tls").issue("node")
    tls = ("--set", f"socketd.tls_certificate={certificate}", "--set", f"socketd.tls_key={key}")
    running = start("--demo", "5", *CHEAP, "--set", "login.admit_rate=6000", *tls)
    running.wait_for(UP)
    assert re.search(r"players signed in +5 of 5\b", running.stdout)
    assert running.end() == 0


def test_a_crowd_comes_in_at_the_rate_and_gets_over_a_dead_node(start: Start) -> None:
    rate = ("--set", "login.admit_rate=240", "--set", "login.pod_count=1")
    running = start("--demo", "20", *CHEAP, *rate)
    running.wait_for("come back at once")
    pid = running.pids["SOCK001"]
    os.kill(pid, signal.SIGKILL)
    running.wait_for(UP)
    assert re.search(r"players signed in +20 of 20\b", running.stdout)
    assert running.pids["SOCK001"] != pid
    assert running.end() == 0


def test_a_signal_ends_it_amid_the_crowd(start: Start) -> None:
    running = start("--demo", "40", *CHEAP, "--set", "login.admit_rate=1")
    running.wait_for("waiting room")
    assert running.end() == 0
    assert "redis has stopped" in running.stdout
    assert (running.data / "logs" / "lobbyctl.log").read_text() == ""


def test_a_terminal_is_shown_a_picture(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [LOBBYCTL, "up", *QUICK, "--data-dir", str(tmp_path / "data")],
        cwd=tmp_path,
        env={**environment(), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = _read_until(ours, UP)
        assert "20 players log in with passwords" in shown
        assert "20 players come back at once" in shown
        assert re.search(r"demo-\w+ is in after \d+\.\d s", shown)
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor hides, and comes back
        process.terminate()
        _read_until(ours, "redis has stopped")
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 65_536).decode(errors="replace")
    return shown
