"""`lobbyctl doctor`: this machine's disks, and who may read what is secret on it."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url

from runtime.config import load, settings
from runtime.secrets import KEY_FILE
from runtime.settings import Config, is_secret
from scripts.commands.doctor_found import Found, ok, warning, wrong

LEAST_FREE_BYTES = 64 * 2**20
LEAST_FREE_SHARE = 0.02
ENOUGH_FREE_BYTES = 10 * 2**30
ENOUGH_FREE_SHARE = 0.10

FREE_IT = (
    "Make room, or move it to a larger disk: stores that cannot write refuse all that changes something."
)


def machine(data_dir: Path, config_file: Path | None, config: Config, database_url: str) -> list[Found]:
    """How this machine's disks and files are. Folders and files that are not here are another machine's."""
    folders = {data_dir, Path(config.portal.storage_url)} if _is_folder(config) else {data_dir}
    file = sqlite_file(database_url)
    if file is not None:
        folders.add(file.parent)
    # Several folders of one disk are one finding.
    disks = {folder.stat().st_dev: folder for folder in sorted(folders) if folder.is_dir()}
    return [*map(_disk, disks.values()), *_secret_files(data_dir, config_file, config)]


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for any other database."""
    parsed = make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _is_folder(config: Config) -> bool:
    return bool(config.portal.storage_url) and "://" not in config.portal.storage_url


def _disk(folder: Path) -> Found:
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    text = f"{usage.free / 2**20:,.0f} MiB ({share:.0%}) are free"
    check = f"disk {folder}"
    if usage.free < LEAST_FREE_BYTES or share < LEAST_FREE_SHARE:
        return wrong(check, text, FREE_IT)
    if usage.free < ENOUGH_FREE_BYTES and share < ENOUGH_FREE_SHARE:
        return warning(check, text, FREE_IT)
    return ok(check, text)


def _secret_files(data_dir: Path, config_file: Path | None, config: Config) -> Iterator[Found]:
    """Whether anybody but its owner and its group may read what is secret, or its group may write it."""
    secret = [data_dir / KEY_FILE, Path(config.auth.secret_file), Path(config.socketd.tls_key)]
    if config_file is not None and _holds_a_secret(config_file):
        secret.append(config_file)
    modes = {path: path.stat().st_mode for path in secret if path.is_file()}
    for path, mode in modes.items():
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield wrong(
                f"file {path}",
                f"its mode is {stat.S_IMODE(mode):o}, and it holds what is secret",
                f"`chmod 600 {path}` (640 for a group of its own), and replace what others may have read.",
            )
    if modes:
        yield ok("secret files", f"{len(modes)} here")


def _holds_a_secret(config_file: Path) -> bool:
    """Whether it sets what is secret: of a URL that is its password."""
    config = load(config_file, environ={}, overrides=[])
    names = (name.split(".") for name, setting in settings().items() if is_secret(setting.annotation))
    given = (getattr(getattr(config, section), key) for section, key in names)
    return any(urlsplit(text).password if "://" in text else text for text in given)
