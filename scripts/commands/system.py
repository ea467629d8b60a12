"""Finding a running system: by the endpoints.json of a data directory, or by a file of settings."""

import os
from pathlib import Path

import msgspec

from runtime.config import load
from scripts.commands.data_dir import DataDir


class NothingRuns(Exception):
    """There is no system to be found; the text tells people where it was looked for, and what to do."""


class Endpoints(msgspec.Struct, frozen=True):
    """What `endpoints.json` says of a running system: `host:port`, URLs with their passwords, pids."""

    sockets: dict[str, str]
    redis: str
    database: str
    pids: dict[str, int]


def redis_url(data_dir: Path, config_file: Path | None) -> str:
    """Where a running system's Redis is: `redis.url` of the file, or what the data directory says.

    Raises NothingRuns, and ConfigError for a file that cannot be used.
    """
    if config_file is not None:
        configured = load(config_file, environ=os.environ, overrides=[]).redis.url
        if configured:
            return configured
    return endpoints(DataDir(data_dir)).redis


def endpoints(data_dir: DataDir) -> Endpoints:
    """What the data directory says of the system that runs there. Raises NothingRuns."""
    path = data_dir.endpoints
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        raise NothingRuns(
            f"Nothing runs in {data_dir.path}: there is no {path.name}. Start it with `lobbyctl up`, or say "
            "with --data-dir or --config where else to look."
        ) from None
    except OSError as error:
        raise NothingRuns(f"{path} cannot be read: {error.strerror}.") from None
    except msgspec.DecodeError as error:
        raise NothingRuns(f"{path} is not what `lobbyctl up` writes: {error}.") from None
