"""As much of `systemctl` as lobbyd calls, where there is no systemd: it really runs the units' own commands.

`UNITS` is the folder of the units, `UNITS_STATE` one for notes. A unit is up once it has said so
(sd_notify), gets its credentials as files and nothing of the caller's environment, and is ended by SIGTERM.
"""

import fnmatch
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.commands.running import lives

UNITS, STATE = Path(os.environ.get("UNITS", "")), Path(os.environ.get("UNITS_STATE", ""))
PATIENCE_S = 30.0


def pids() -> dict[str, int]:
    """The units that are up, and their processes."""
    found = {path.stem: int(path.read_text()) for path in STATE.glob("*.pid")}
    return {unit: pid for unit, pid in found.items() if lives(pid)}


def start(unit: str) -> int:
    """Run the unit's command, and wait until it is ready. Answers the exit code."""
    if unit in pids():
        return 0
    template, instance = re.sub("@.*(?=[.])", "@", unit), unit.partition("@")[2].rpartition(".")[0]
    lines = (UNITS / template).read_text().splitlines()
    given = [line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#")]
    command = next(text for name, text in given if name == "ExecStart").replace("%i", instance)
    environment = dict(text.split("=", 1) for name, text in given if name == "Environment")
    credentials = STATE / f"{unit}.credentials"
    credentials.mkdir(exist_ok=True)
    for text in _loaded(given):
        name, _, source = text.partition(":")
        (credentials / name).write_text(Path(source).read_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, (STATE / "log").open("ab") as log:
        address = STATE / f"{len(list(STATE.iterdir()))}.{os.getpid()}"
        notified.bind(str(address))
        notified.settimeout(0.1)
        environment |= {"CREDENTIALS_DIRECTORY": str(credentials), "NOTIFY_SOCKET": str(address)}
        process = subprocess.Popen(
            shlex.split(command), env=environment, cwd="/", stdout=log, stderr=log, start_new_session=True
        )
        (STATE / f"{unit}.pid").write_text(str(process.pid))
        until_s = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < until_s:
            try:
                if b"READY=1" in notified.recv(4096):
                    return 0
            except TimeoutError:
                pass
    print(f"Job for {unit} failed.", file=sys.stderr)
    return 1


def _loaded(given: list[tuple[str, str]]) -> list[str]:
    """The credentials; an empty line of them begins the list anew."""
    loaded: list[str] = []
    for name, text in given:
        if name == "LoadCredential":
            loaded = [*loaded, text] if text else []
    return loaded


def stop(unit: str) -> int:
    """Ask the unit's process to end, and wait until it has. Answers the exit code."""
    pid = pids().get(unit)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        while lives(pid):
            time.sleep(0.02)
    return 0


def main() -> int:
    """Do what is asked for. Answers the exit code."""
    verb, name = (each for each in sys.argv[1:] if not each.startswith("--"))
    if verb == "list-units":
        for unit in fnmatch.filter(pids(), name):
            print(unit, "loaded active running lobbyd")
        return 0
    return {"start": start, "stop": stop}[verb](name)


if __name__ == "__main__":
    sys.exit(main())
