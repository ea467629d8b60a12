"""`lobbyctl install`: lays systemd units and what they need, for processes that systemd keeps alive."""

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime.config import ConfigError
from runtime.daemon import EXIT_CLEAN, EXIT_CONFIG, EXIT_ERROR
from runtime.secrets import new_secret
from workers.__main__ import KINDS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "deploy" / "systemd"

USER_PREFIXES = (Path("/usr"), Path("/usr/local"))
"""Below these settings lie in /etc; below any other prefix they lie in its own etc."""

PRIVATE = 0o600
PUBLIC = 0o644
PROGRAM = 0o755

HOMES = (Path("/home"), Path("/root"))
"""Folders that the units cannot see."""


def lay(prefix: Path) -> list[Path]:
    """Write the units for this installation under `prefix`. What people may have changed is left alone.

    Answers what was written. Raises ConfigError where the units could not work, OSError where a file
    cannot be written.
    """
    _check_python()
    for path in (prefix, ROOT, Path(sys.executable)):
        _check_name(path)
    etc = Path("/etc") if prefix in USER_PREFIXES else prefix / "etc"
    values = {
        "PYTHON": sys.executable,
        "LOBBYCTL": str(Path(sys.executable).with_name("lobbyctl")),
        "ETC": str(etc),
        "DOCS": str(ROOT / "docs"),
    }
    values["COMMON"] = _filled(SOURCES / "common.conf", values).strip()
    lib = prefix / "lib"
    units = [SOURCES / name for name in sorted(_names())]
    written = [_write(lib / "systemd" / "system" / unit.name, _filled(unit, values)) for unit in units]
    written.append(_write(lib / "sysusers.d" / "lobbyd.conf", _filled(SOURCES / "lobbyd.sysusers", values)))
    written.append(_write(lib / "tmpfiles.d" / "lobbyd.conf", _filled(SOURCES / "lobbyd.tmpfiles", values)))
    # Where polkit looks besides its own folder; /usr/local is none of those places.
    written.append(
        _write(etc / "polkit-1" / "rules.d" / "50-lobbyd.rules", _filled(SOURCES / "lobbyd.rules", {}))
    )
    command = _write(prefix / "bin" / "lobbyctl", _filled(SOURCES / "lobbyctl", values), PROGRAM)
    return [*written, command, *_settings(etc / "lobbyd")]


def _names() -> list[str]:
    return [path.name for path in SOURCES.iterdir() if path.suffix in {".service", ".target"}]


def _check_python() -> None:
    python = Path(sys.executable)
    home = _home_of(python)
    if home is not None:
        raise ConfigError(
            f"{python}: the units cannot see into {home}. Put lobbyd where every user can "
            "read it, such as /opt/lobbyd, run scripts/setup there, and install from there."
        )
    home = _home_of(python.resolve())
    if home is not None:
        raise ConfigError(
            f"{python} is {python.resolve()}: the units cannot see into {home}. Install Python for all users "
            "(Debian, Ubuntu: apt-get install python3 python3-venv), remove .venv, and run scripts/setup "
            "with it first on PATH."
        )


def _check_name(path: Path) -> None:
    """Units and scripts take blanks, `%`, `$` and quotes for something else than a part of a name."""
    if re.fullmatch(r"[\w@+./-]+", str(path)) is None:
        raise ConfigError(
            f"{path}: a unit cannot name it. Use a path of letters, digits and @ + . / _ - alone."
        )


def _home_of(path: Path) -> Path | None:
    return next((home for home in HOMES if path.is_relative_to(home)), None)


def _filled(source: Path, values: Mapping[str, str]) -> str:
    text = source.read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _settings(folder: Path) -> list[Path]:
    """Settings and credentials, those that are not there yet."""
    config = (ROOT / "config.toml").read_text("utf-8")
    config = config.replace('storage_url = ""', 'storage_url = "/var/lib/lobbyd/files"')
    first = {
        "config.toml": config,
        "secret": new_secret() + "\n",
        "redis.url": "redis://127.0.0.1:6379/0\n",
        "database.url": "mysql+aiomysql://lobbyd:change-me@127.0.0.1:3306/lobbyd\n",
    }
    written = []
    for name, text in first.items():
        path = folder / name
        if not path.exists():
            written.append(_write(path, text, PUBLIC if name == "config.toml" else PRIVATE))
    return written


def _write(path: Path, text: str, mode: int = PUBLIC) -> Path:
    """Write a file of this mode, whatever the umask: the processes are other users than who installs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(PRIVATE)
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def lay_and_tell(prefix: Path, *, as_json: bool) -> int:
    """Lay the files, and say what comes next. Answers the exit code."""
    try:
        written = lay(prefix.absolute())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(
            f"{error.filename}: {error.strerror}. Run it as root, or choose another --prefix.",
            file=sys.stderr,
        )
        return EXIT_ERROR
    if as_json:
        print(json.dumps({"written": [str(path) for path in written]}))
        return EXIT_CLEAN
    for path in written:
        print(path)
    etc = next((path.parent for path in written if path.name == "config.toml"), None)
    edit = f"  edit {etc}/redis.url, {etc}/database.url and {etc}/config.toml\n" if etc else ""
    print(
        f"\nNext:\n{edit}"
        "  give every machine the same secret\n"
        "  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload\n"
        f"  systemctl enable --now lobbyd.target lobbyd-worker@{{{','.join(sorted(KINDS))}}} "
        "lobbyd-socketd@SOCK001"
    )
    if shutil.which("systemctl") is None:
        print("There is no systemd on this machine: the units are for another.", file=sys.stderr)
    return EXIT_CLEAN
