"""The data directory: everything that one system keeps on this machine, for its owner's eyes alone."""

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from runtime.config import ConfigError
from scripts.commands import DEFAULT_DATA_DIR

LEFTOVER_PATIENCE_S = 60.0
"""How long a start waits for the processes of a killed `up`. They drain, for at most 45 s by default."""

LOOK_AGAIN_S = 0.2


class RunsAlready(Exception):
    """Another process has the data directory; the text tells people which, and what to do."""


class DataDir:
    """A data directory. `path` is absolute."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def is_default(self) -> bool:
        """Whether commands that are given no data directory mean this one."""
        return self.path == DEFAULT_DATA_DIR.absolute()

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self.path / "logs"

    @property
    def redis(self) -> Path:
        """The folder of the embedded Valkey."""
        return self.path / "redis"

    @property
    def endpoints(self) -> Path:
        """The file by which others find the running system."""
        return self.path / "endpoints.json"

    @property
    def is_abandoned(self) -> bool:
        """Whether a system ran here, and all of its processes are gone."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            return _lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def make(self) -> None:
        """Make the directory and its folders, mode 0700. Raises ConfigError."""
        # For everything that this process and its children will write, too.
        os.umask(0o077)
        try:
            for folder in (self.path, self.logs, self.redis):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--data-dir {self.path}: cannot be made: {error.strerror}") from None

    @asynccontextmanager
    async def locked(self, tell: Callable[[str], None]) -> AsyncIterator[int]:
        """Hold the directory; gives the lock's file descriptor.

        Children that inherit it hold the lock too: as long as one of them lives, nobody else starts on the
        same data. Raises RunsAlready, and ConfigError where nothing can be written.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            await self._take(descriptor, tell)
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            except OSError as error:
                raise ConfigError(f"--data-dir {self.path}: cannot be written: {error.strerror}") from None
            yield descriptor
        finally:
            os.close(descriptor)

    def write(self, path: Path, text: str) -> None:
        """Write a file of mode 0600, whole or not at all."""
        draft = path.with_name(f".{path.name}.draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)

    def password(self, name: str) -> str:
        """The password kept in a file of this name, which is made when missing."""
        path = self.path / name
        if not path.exists():
            self.write(path, secrets.token_urlsafe(32) + "\n")
        return path.read_text().strip()

    async def _take(self, descriptor: int, tell: Callable[[str], None]) -> None:
        told = False
        clock = asyncio.get_running_loop().time
        until_s = clock() + LEFTOVER_PATIENCE_S
        while not _lock(descriptor):
            pid = _pid(os.pread(descriptor, 32, 0))
            if pid is not None and _lives(pid):
                raise RunsAlready(
                    f"lobbyd runs already in {self.path}, as process {pid}. Look with `lobbyctl status`, "
                    f"stop it with `kill {pid}`, or choose another --data-dir."
                )
            if clock() > until_s:
                raise RunsAlready(
                    f"{self.path} is still held by processes of an earlier run, whose `lobbyctl up` is gone. "
                    f"{self.endpoints.name} there names them."
                )
            if not told:
                tell(f"Waiting for what a killed `lobbyctl up` left in {self.path} to end")
                told = True
            await asyncio.sleep(LOOK_AGAIN_S)


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
