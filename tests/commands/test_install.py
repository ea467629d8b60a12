"""Units as systemd itself judges them, and settings that are laid once."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from runtime.config import load
from runtime.secrets import Purpose, Secrets
from scripts.commands import install
from storage import keys
from tests.commands.running import environment

EXPOSURE_TENTHS = 20
UNITS = ("lobbyd-scaling.service", "lobbyd-socketd@.service", "lobbyd-worker@.service")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze to judge units"
)


@pytest.fixture
def laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix under which it is installed. Where this checkout lies is no matter of the test's."""
    monkeypatch.setattr(install, "HOMES", ())
    assert install.lay(tmp_path)
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.servers
def test_systemd_finds_no_fault_with_the_units(laid: Path) -> None:
    folder = laid / "lib" / "systemd" / "system"
    done = analyze("verify", *(folder / name for name in (*UNITS, "lobbyd.target")))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.servers
@pytest.mark.parametrize("name", UNITS)
def test_the_units_may_do_little(laid: Path, name: str) -> None:
    unit = laid / "lib" / "systemd" / "system" / name
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_TENTHS}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_left_to_be_filled_in(laid: Path) -> None:
    laid_out = (
        *(laid / "lib").rglob("*.*"),
        *(laid / "etc" / "polkit-1").rglob("*.*"),
        laid / "bin" / "lobbyctl",
    )
    for path in laid_out:
        if path.is_file():
            assert re.findall("@[A-Z]+@", path.read_text()) == []


def test_the_settings_are_good_and_the_secret_is_nobody_else_s(laid: Path, tmp_path: Path) -> None:
    etc = laid / "etc" / "lobbyd"
    config = load(etc / "config.toml", environ={}, overrides=[])
    assert config.portal.storage_url == "/var/lib/lobbyd/files"
    for name in ("secret", "redis.url", "database.url"):
        assert (etc / name).stat().st_mode & 0o077 == 0
    given = tmp_path / "credentials"
    given.mkdir()
    (given / "lobbyd_secret").write_text((etc / "secret").read_text())
    (given / "LOBBYD_REDIS__URL").write_text((etc / "redis.url").read_text())
    environ = {"CREDENTIALS_DIRECTORY": str(given)}
    assert load(etc / "config.toml", environ=environ, overrides=[]).redis.url == "redis://127.0.0.1:6379/0"
    secrets = Secrets.load(config.auth, environ=environ, data_dir=None)
    assert secrets.keyed_hash(Purpose.ADDRESS, "somewhere")


@pytest.mark.servers
def test_operators_need_not_say_where_what_systemd_runs_is(
    laid: Path, valkey_url: str, tmp_path: Path
) -> None:
    etc = laid / "etc" / "lobbyd"
    (etc / "redis.url").write_text(f"{valkey_url}\n")
    (etc / "database.url").write_text(f"sqlite+aiosqlite:///{tmp_path}/lobbyd.sqlite3\n")

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [laid / "bin" / "lobbyctl", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    paused = typed("admission", "pause", "--json")
    assert paused.returncode == 0, paused.stderr
    with Redis.from_url(valkey_url) as redis:
        assert redis.hget(keys.PORTAL_CONFIG, "paused") == b"1"
    found = {each["check"]: each for each in json.loads(typed("doctor", "--json").stdout)["found"]}
    assert (found["redis"]["state"], found["secret"]["state"]) == ("ok", "warning")
    (etc / "redis.url").unlink()
    missing = typed("status")
    assert (missing.returncode, "redis.url" in missing.stderr) == (1, True)


def test_others_may_read_what_is_for_them_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "HOMES", ())
    before = os.umask(0o077)
    try:
        install.lay(tmp_path)
    finally:
        os.umask(before)
    modes = {
        "bin/lobbyctl": 0o755,
        "etc/lobbyd/config.toml": 0o644,
        "etc/lobbyd/secret": 0o600,
        "etc/polkit-1/rules.d/50-lobbyd.rules": 0o644,
        "lib/systemd/system/lobbyd-worker@.service": 0o644,
    }
    assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in modes} == modes


@pytest.mark.parametrize("name", ["my lobbyd", "100%", "a;b", 'a"b', "a$HOME", "a\nb"])
def test_a_folder_that_units_cannot_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(install, "HOMES", ())
    assert install.lay_and_tell(tmp_path / name, as_json=False) == 2
    assert "a unit cannot name it" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_what_people_have_changed_stays(laid: Path) -> None:
    etc = laid / "etc" / "lobbyd"
    before = {path.name: path.read_text() for path in etc.iterdir()}
    (etc / "config.toml").write_text("# mine\n")
    unit = laid / "lib" / "systemd" / "system" / "lobbyd.target"
    unit.write_text("# an older release's\n")
    written = install.lay(laid)
    assert unit in written
    assert etc / "config.toml" not in written
    assert {path.name: path.read_text() for path in etc.iterdir()} == {**before, "config.toml": "# mine\n"}
    assert unit.read_text().startswith("[Unit]")


def test_units_that_could_not_see_their_python_are_not_laid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "HOMES", (Path("/"),))
    assert install.lay_and_tell(tmp_path, as_json=False) == 2
    assert "such as /opt/lobbyd" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_python_that_lies_in_somebody_s_home_is_none_for_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, opt = tmp_path / "home", tmp_path / "opt"
    for folder in (home, opt):
        folder.mkdir()
    (home / "python").write_text("")
    (opt / "python").symlink_to(home / "python")
    monkeypatch.setattr(install, "HOMES", (home,))
    monkeypatch.setattr(sys, "executable", str(opt / "python"))
    assert install.lay_and_tell(tmp_path / "prefix", as_json=False) == 2
    assert "Install Python for all users" in capsys.readouterr().err
    assert not (tmp_path / "prefix").exists()


def test_where_nothing_may_be_written_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "HOMES", ())
    (tmp_path / "lib").write_text("a file")
    assert install.lay_and_tell(tmp_path, as_json=False) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path}/lib")
    assert said.endswith("Run it as root, or choose another --prefix.\n")


def test_programs_are_told_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "HOMES", ())
    assert install.lay_and_tell(tmp_path, as_json=True) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert str(tmp_path / "lib/systemd/system/lobbyd-worker@.service") in written
    assert all(Path(path).is_file() for path in written)
