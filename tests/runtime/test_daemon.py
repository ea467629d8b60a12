"""The life of a process, watched from outside: real processes, real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.servers

PROGRAM = Path(__file__).with_name("sample_process.py")
PATIENCE_S = 90.0
STARTED = ["claim", "starting", "start one", "start two, attempt 1", "start three", "ready"]
STOPPED = ["stop two", "stop one", "stopped", "release"]


class Running:
    """A sample process and what it has noted."""

    def __init__(self, folder: Path, fault: str) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        command = [sys.executable, str(PROGRAM), str(self.notes), fault]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def noted(self) -> list[str]:
        """The notes so far, without the heartbeats."""
        return [line for line in self.notes.read_text().splitlines() if line != "heartbeat"]

    def wait_for(self, note: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while note not in self.notes.read_text().splitlines():
            assert self.process.poll() is None, "the process is gone"
            assert time.monotonic() < until, f"no note {note!r}"
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit code and what was written to stderr."""
        _, stderr = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, stderr

    def exit_code(self) -> int:
        return self.end()[0]


Start = Callable[[str], Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(fault: str) -> Running:
        started.append(Running(tmp_path, fault))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.process.communicate()


def errors(stderr: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stderr.splitlines()) if line["level"] == "error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_whole_life(start: Start, number: signal.Signals) -> None:
    running = start("none")
    running.wait_for("ready")
    running.wait_for("heartbeat")
    running.send(number)
    code, stderr = running.end()
    assert (code, errors(stderr)) == (0, [])
    assert running.noted() == [*STARTED, "draining", "drain", "drained", *STOPPED]


def test_who_is_dismissed_ends_as_at_a_signal(start: Start) -> None:
    running = start("dismissed")
    code, stderr = running.end()
    assert (code, errors(stderr)) == (0, [])
    assert running.noted() == [*STARTED, "draining", "drain", "drained", *STOPPED]


def test_heartbeats_end_before_the_last_announcement(start: Start) -> None:
    running = start("drain hangs")
    running.wait_for("ready")
    running.send(signal.SIGTERM)
    running.exit_code()
    notes = running.notes.read_text().splitlines()
    assert "heartbeat" in notes[notes.index("drain") :]
    assert notes[-2:] == ["stopped", "release"]


def test_a_step_that_fails_is_tried_again(start: Start) -> None:
    running = start("step fails twice")
    running.wait_for("ready")
    assert running.noted()[3:6] == [f"start two, attempt {attempt}" for attempt in (1, 2, 3)]
    running.send(signal.SIGTERM)
    assert running.exit_code() == 0


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("step fails", "two: OSError: redis://***@host is away"),
        ("step fails by an error of its own", "two: LookupError: the store is away"),
        ("step hangs", "two: took longer than 0.3 s"),
        ("step cancels itself", "two: RuntimeError: ended in a cancellation that nobody asked for"),
    ],
)
def test_a_step_that_keeps_failing_ends_the_process_in_error(start: Start, fault: str, cause: str) -> None:
    running = start(fault)
    code, stderr = running.end()
    assert code == 1
    attempts = [f"start two, attempt {attempt}" for attempt in (1, 2, 3)]
    assert running.noted() == [
        "claim",
        "starting",
        "start one",
        *attempts,
        "stop one",
        f"error {cause}",
        "release",
    ]
    (error,) = errors(stderr)
    assert (error["event"], error["cause"]) == ("ends in error", cause)
    assert "exception" not in error


def test_a_refused_process_announces_nothing(start: Start) -> None:
    running = start("refused")
    code, stderr = running.end()
    assert (code, running.noted()) == (3, ["claim"])
    (error,) = errors(stderr)
    assert (error["event"], error["cause"]) == ("refused", "claim: SAMPLE is alive already")


def test_a_claim_that_cannot_be_made_announces_nothing(start: Start) -> None:
    running = start("claim fails")
    assert running.exit_code() == 1
    assert running.noted() == ["claim", "claim"]


def test_a_process_that_lost_its_name_stops_without_a_word(start: Start) -> None:
    running = start("name lost")
    assert running.exit_code() == 3
    assert running.noted() == [*STARTED, "stop two", "stop one", "release"]


@pytest.mark.parametrize("fault", ["side task fails", "side task fails, error hangs"])
def test_a_side_task_that_fails_ends_the_process_loudly(start: Start, fault: str) -> None:
    running = start(fault)
    code, stderr = running.end()
    assert code == 1
    assert running.noted() == [*STARTED, "stop two", "stop one", "error reader: KeyError: 'gone'", "release"]
    (error,) = errors(stderr)
    assert "Traceback" in error["exception"]


def test_a_signal_while_starting_stops_what_was_started(start: Start) -> None:
    running = start("step hangs")
    running.wait_for("start two, attempt 1")
    running.send(signal.SIGTERM)
    assert running.exit_code() == 0
    after = [note for note in running.noted()[3:] if not note.startswith("start two")]
    assert after == ["stop one", "stopped", "release"]


@pytest.mark.parametrize("fault", ["announcements fail", "announcements hang"])
def test_announcements_that_fail_stop_nothing(start: Start, fault: str) -> None:
    running = start(fault)
    running.wait_for("ready")
    running.send(signal.SIGTERM)
    assert running.exit_code() == 0
    assert running.noted() == [*STARTED, "draining", "drain", "drained", *STOPPED]


@pytest.mark.parametrize("fault", ["stop fails", "stop cancels itself", "stop hangs"])
def test_a_stop_that_fails_does_not_keep_the_others_from_stopping(start: Start, fault: str) -> None:
    running = start(fault)
    running.wait_for("ready")
    running.send(signal.SIGTERM)
    assert running.exit_code() == 1
    assert running.noted() == [*STARTED, "draining", "drain", "drained", *STOPPED]


def test_a_drain_that_takes_too_long_is_cut(start: Start) -> None:
    running = start("drain hangs")
    running.wait_for("ready")
    running.send(signal.SIGTERM)
    code, stderr = running.end()
    assert code == 1
    assert [error["event"] for error in errors(stderr)] == ["drain unfinished"]
    assert running.noted() == [*STARTED, "draining", "drain", *STOPPED]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("drain fails", "drain: OSError: cannot finish"),
        ("drain hangs, side task fails", "reader: KeyError: 'gone'"),
    ],
)
def test_a_failure_while_draining_is_an_error(start: Start, fault: str, cause: str) -> None:
    running = start(fault)
    running.wait_for("ready")
    running.send(signal.SIGTERM)
    assert running.exit_code() == 1
    end = ["draining", "drain", "stop two", "stop one", f"error {cause}", "release"]
    assert running.noted() == [*STARTED, *end]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_a_second_signal_ends_at_once(
    start: Start, first: signal.Signals, second: signal.Signals, code: int
) -> None:
    running = start("drain hangs for long")
    running.wait_for("ready")
    running.send(first)
    running.wait_for("drain")
    running.send(second)
    assert running.exit_code() == code
    assert running.noted() == [*STARTED, "draining", "drain"]


def test_bad_settings_are_one_line_and_exit_code_2(start: Start) -> None:
    running = start("bad settings")
    assert running.end() == (2, "config.toml: login.admit_rate: expected an integer\n")
    assert running.noted() == []


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = f"lobbyd-daemon-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield receiver


def read_on(receiver: socket.socket) -> None:
    """Read notices until none comes any more."""
    while True:
        receiver.recv(4096)


def test_systemd_hears_of_ready_stopping_and_the_watchdog(start: Start, systemd: socket.socket) -> None:
    running = start("none")
    while systemd.recv(4096) != b"READY=1":
        pass
    while systemd.recv(4096) != b"WATCHDOG=1":
        pass
    running.send(signal.SIGTERM)
    while systemd.recv(4096) != b"STOPPING=1":
        pass
    assert running.exit_code() == 0


def test_a_blocked_process_does_not_feed_the_watchdog(start: Start, systemd: socket.socket) -> None:
    running = start("blocked")
    running.wait_for("blocked")
    systemd.settimeout(1.0)  # two and a half times what systemd would allow
    with pytest.raises(TimeoutError):
        read_on(systemd)
