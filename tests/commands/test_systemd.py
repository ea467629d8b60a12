"""Workers under systemd come and go: an installation's own units, run without a systemd by `units.py`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.commands import install
from scripts.commands.systemd import NUMBERED
from tests.commands.running import LOBBYCTL, PATIENCE_S, environment, lives, wait_until
from workers.__main__ import KINDS
from workers.operations.scaling import ALONE

ROOT = Path(__file__).parents[2]
QUICK = {
    "status.heartbeat_s": 0.5, "monitoring.every_s": 0.3, "scaling.every_s": 0.3, "scaling.more_after_s": 3,
    "scaling.fewer_after_s": 1, "scaling.least": 2,
}  # fmt: skip


class Installed:
    """An installation below a folder. What it starts ends with `clean_up`."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self.folder = folder
        self.etc = folder / "etc" / "lobbyd"
        state, programs = folder / "state", folder / "bin"
        for each in (state, programs):
            each.mkdir()
        assert install.lay(folder)
        (self.etc / "redis.url").write_text(redis_url)
        (self.etc / "database.url").write_text(database_url)
        self.set(QUICK)
        systemctl = programs / "systemctl"
        systemctl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.commands.units "$@"\n')
        systemctl.chmod(0o755)
        self.environment = {
            **environment(),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "UNITS": str(folder / "lib" / "systemd" / "system"),
            "UNITS_STATE": str(state),
            "LOBBYD_REDIS__URL": redis_url,
        }
        self._command = (LOBBYCTL, "scaling")
        self._options = ("--config", str(self.etc / "config.toml"))
        self._state = state
        self._follower: subprocess.Popen[bytes] | None = None

    @property
    def up(self) -> set[str]:
        """The units that are up."""
        return {path.stem for path in self._state.glob("*.pid") if lives(int(path.read_text()))}

    def set(self, values: dict[str, float]) -> None:
        """Change settings in the file."""
        path = self.etc / "config.toml"
        text = path.read_text()
        for name, value in values.items():
            section, _, key = name.partition(".")
            text, count = re.subn(rf"(?sm)(^\[{section}\]\n.*?^{key} = )\S+", rf"\g<1>{value}", text, count=1)
            assert count == 1, name
        path.write_text(text)

    def systemctl(self, *words: str) -> None:
        done = subprocess.run(["systemctl", *words], env=self.environment, check=False)
        assert done.returncode == 0, (self._state / "log").read_text()

    def apply(self, *options: str) -> Path:
        """Follow the decisions. Answers the file of what it says."""
        said = self.folder / f"said{len(options)}"
        with said.open("w") as output:
            self._follower = subprocess.Popen(
                [*self._command, "apply", *self._options, *options],
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        return said

    def scaling(self) -> str:
        """What `lobbyctl scaling` shows."""
        return subprocess.check_output([*self._command, *self._options], env=self.environment, text=True)

    def follow_no_more(self) -> int:
        """End who follows. Answers its exit code."""
        assert self._follower is not None
        self._follower.send_signal(signal.SIGTERM)
        return self.followed()

    def followed(self) -> int:
        """Wait until nobody follows. Answers the exit code of who did."""
        assert self._follower is not None
        return self._follower.wait(PATIENCE_S)

    def clean_up(self) -> None:
        if self._follower is not None:
            self._follower.kill()
            self._follower.wait()
        for path in self._state.glob("*.pid"):
            if lives(int(path.read_text())):
                os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey_url: str, sqlite_url: str
) -> Iterator[Installed]:
    monkeypatch.setattr(install, "HOMES", ())
    made = Installed(tmp_path, valkey_url, sqlite_url)
    yield made
    made.clean_up()


def test_units_with_a_number_come_and_go_and_a_dry_run_only_tells(installed: Installed) -> None:
    own = {f"lobbyd-worker@{kind}.service" for kind in ("status", "login", "operations")}
    for unit in sorted(own):
        installed.systemctl("start", unit)
    told = installed.apply("--dry-run", "--json")
    wait_until(lambda: "would start lobbyd-worker@login-2.service" in told.read_text(), "it is told")
    assert installed.follow_no_more() == 0
    said = [json.loads(line)["says"] for line in told.read_text().splitlines()]
    assert re.fullmatch(r"login: 1 worker, load .*: 2; would start lobbyd-worker@login-2.service", said[-1])
    assert installed.up == own

    followed = installed.apply()
    wait_until(lambda: installed.up == own | {"lobbyd-worker@login-2.service"}, "one more is up")
    wait_until(lambda: "; start lobbyd-worker@login-2.service" in followed.read_text(), "it is said")
    assert re.search(r"^lobbyctl scaling apply \(process \d+ of .*\) follows\.$", installed.scaling(), re.M)

    installed.set({"scaling.least": 1})
    installed.systemctl("stop", "lobbyd-worker@operations.service")
    installed.systemctl("start", "lobbyd-worker@operations.service")
    wait_until(lambda: installed.up == own, "it is down again, and the operator's own are not")
    wait_until(lambda: re.search("; end .*@login-2[.]service", followed.read_text()), "it is said")
    assert installed.follow_no_more() == 0
    assert installed.up == own


def test_without_a_systemd_that_is_said(installed: Installed) -> None:
    (installed.folder / "bin" / "systemctl").unlink()
    installed.environment["PATH"] = str(installed.folder / "bin")
    said = installed.apply()
    assert installed._follower is not None
    assert installed._follower.wait(20) == 1
    assert said.read_text().startswith(
        "There is no systemd to be asked: systemctl cannot be run: No such file"
    )


def test_the_rule_allows_the_units_that_come_and_go_and_no_others() -> None:
    rule = (install.SOURCES / "lobbyd.rules").read_text()
    pattern = re.search(r"/\^(.*)\$/\.test", rule)
    assert pattern is not None
    for kind in KINDS:
        unit = f"lobbyd-worker@{kind}-12.service"
        assert bool(re.fullmatch(pattern[1], unit)) == (kind not in ALONE)
        assert NUMBERED.fullmatch(unit)
        for other in (
            f"lobbyd-worker@{kind}.service",
            f"lobbyd-worker@{kind}-0.service",
            f"x{unit}",
            f"{unit}x",
        ):
            assert not re.fullmatch(pattern[1], other)
            assert not NUMBERED.fullmatch(other)
