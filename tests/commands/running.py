"""A real `lobbyctl up`, watched from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

LOBBYCTL = str(Path(sys.executable).with_name("lobbyctl"))
PATIENCE_S = 90.0
CHEAP = ("--port", "0", "--set", "auth.bcrypt_cost=4")
UP = "The system stays up."


def environment() -> dict[str, str]:
    """This process's, without settings of lobbyd."""
    return {name: text for name, text in os.environ.items() if not name.startswith("LOBBYD_")}


def lobbyctl(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [LOBBYCTL, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that takes its time."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def as_from_a_terminal() -> None:
    """Undo what nohup and a shell's background jobs hand down: signals that are ignored from the start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Running:
    """A `lobbyctl up` in a folder of its own, with its data in `data`."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [LOBBYCTL, "up", "--data-dir", str(self.data), *options],
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=as_from_a_terminal,  # noqa: PLW1509 - a test starts it before any thread
            )
        self._seen: set[int] = set()

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        self._seen.update(found["pids"].values())
        return found

    @property
    def pids(self) -> Mapping[str, int]:
        pids: Mapping[str, int] = self.endpoints["pids"]
        return pids

    def status(self) -> dict[str, Any]:
        """What `lobbyctl status --json` says."""
        done = lobbyctl("status", "--json", "--data-dir", str(self.data), folder=self.folder)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def server(self, process_id: str) -> Mapping[str, str]:
        """The status of one process."""
        servers: list[Mapping[str, str]] = self.status()["servers"]
        return {server["serverId"]: server for server in servers}.get(process_id, {})

    def is_ready(self, process_id: str, pid: int) -> bool:
        """Whether the status says that this very process is READY."""
        server = self.server(process_id)
        return (server.get("statusCode"), server.get("pid")) == ("READY", str(pid))

    def wait_for(self, text: str) -> None:
        """Wait for a text on stdout."""

        def is_said() -> bool:
            if text in self.stdout:
                return True
            assert self.process.poll() is None, f"ended before saying {text!r}: {self.stdout}{self.stderr}"
            return False

        wait_until(is_said, f"{text!r} is said")

    def wait_until_restarted(self, process_id: str, before: int) -> int:
        """Wait until a process that had the pid `before` is READY again; its new pid."""
        wait_until(lambda: self.pids.get(process_id, before) != before, f"a new pid for {process_id}")
        pid = self.pids[process_id]
        wait_until(lambda: self.is_ready(process_id, pid), f"{process_id} is READY as {pid}")
        return pid

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; the exit code."""
        self.process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)

    def left(self) -> set[int]:
        """Those of the processes seen in endpoints.json that live."""
        return {pid for pid in self._seen if lives(pid)}

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test did."""
        self.process.kill()
        self.process.wait()
        if (self.data / "endpoints.json").exists():
            self.endpoints  # noqa: B018 - notes the pids
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
