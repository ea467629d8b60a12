"""Finding a running system: by the endpoints.json of a data directory, or by a file of settings."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from runtime.config import ConfigError, load
from runtime.daemon import EXIT_CLEAN, EXIT_ERROR
from runtime.logging import redact_text
from runtime.secrets import KEY_FILE, Secrets
from scripts.commands.data_dir import DataDir
from storage.connections import connect, connect_wire
from storage.database import Database
from storage.errors import StoreAway
from storage.keyring import OtherMasterSecret
from storage.queues import Outbox
from storage.wire import Wire

COMMAND_LIMIT_S = 60.0
"""What a command gives the database for one transaction: an operator waits longer than a player."""


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


def database_url(data_dir: Path, config_file: Path | None) -> str:
    """Where a running system's database is, found as its Redis is. Raises NothingRuns and ConfigError."""
    if config_file is not None:
        configured = load(config_file, environ=os.environ, overrides=[]).database.url
        if configured:
            return configured
    return endpoints(DataDir(data_dir)).database


def secrets_of(data_dir: Path, config_file: Path | None) -> Secrets:
    """What the system's processes derive from their master secret, which this process must be able to read.

    Raises ConfigError.
    """
    auth = load(config_file, environ=os.environ, overrides=[]).auth
    has_own = (data_dir / KEY_FILE).exists()
    return Secrets.load(auth, environ=os.environ, data_dir=data_dir if has_own else None)


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


async def with_database(
    data_dir: Path, config_file: Path | None, work: Callable[[Database, Secrets], Awaitable[int | None]]
) -> int:
    """Do a command's work with a running system's database and secrets, or say on stderr why that cannot be.

    Answers the exit code, as `with_redis`. Raises ConfigError.
    """
    url = ""
    try:
        url = database_url(data_dir, config_file)
        database = Database(url, time_limit_s=COMMAND_LIMIT_S)
        try:
            return await work(database, secrets_of(data_dir, config_file)) or EXIT_CLEAN
        finally:
            await database.close()
    except (NothingRuns, OtherMasterSecret) as error:
        print(error, file=sys.stderr)
    except StoreAway as error:
        cause = redact_text(str(error))
        _say_away(f"The system's database does not answer: {cause}", data_dir, config_file)
    return EXIT_ERROR


@dataclass(frozen=True)
class Stores:
    """A running system's stores. `wire` is for what is sent to its nodes."""

    redis: Redis
    wire: Wire
    database: Database


async def with_stores(
    data_dir: Path,
    config_file: Path | None,
    work: Callable[[Stores], Awaitable[int | None]],
    time_limit_s: float = COMMAND_LIMIT_S,
) -> int:
    """Do a command's work with a running system's stores, or say on stderr why that cannot be.

    `time_limit_s` is what one transaction may take.

    Answers the exit code, as `with_redis`. Raises ConfigError.
    """
    try:
        url = redis_url(data_dir, config_file)
        database = Database(database_url(data_dir, config_file), time_limit_s=time_limit_s)
        wire = connect_wire(url)
        try:
            async with _connect(url) as redis:
                return await work(Stores(redis, wire, database)) or EXIT_CLEAN
        finally:
            await wire.aclose()
            await database.close()
    except NothingRuns as error:
        print(error, file=sys.stderr)
    except (StoreAway, RedisError) as error:
        _say_away(f"The system cannot be reached: {redact_text(str(error))}", data_dir, config_file)
    return EXIT_ERROR


@contextlib.asynccontextmanager
async def sending(wire: Wire) -> AsyncIterator[Outbox]:
    """An outbox that sends what is handed to it."""
    outbox = Outbox(wire)
    sending = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def with_redis(
    data_dir: Path, config_file: Path | None, work: Callable[[Redis], Awaitable[int | None]]
) -> int:
    """Do a command's work with a running system's Redis, or say on stderr why that cannot be.

    Answers the exit code: the one that `work` answers, or else a clean one. Raises ConfigError.
    """

    async def without_wire(redis: Redis, _: Wire) -> int | None:
        return await work(redis)

    return await with_wire(data_dir, config_file, without_wire)


async def with_wire(
    data_dir: Path, config_file: Path | None, work: Callable[[Redis, Wire], Awaitable[int | None]]
) -> int:
    """As `with_redis`, for a command that also sends to the system's nodes."""
    url = ""
    try:
        url = redis_url(data_dir, config_file)
        async with _connect(url) as redis, contextlib.aclosing(connect_wire(url)) as wire:
            return await work(redis, wire) or EXIT_CLEAN
    except NothingRuns as error:
        print(error, file=sys.stderr)
    except (StoreAway, RedisError) as error:
        cause = redact_text(str(error.__cause__ or error))
        _say_away(f"The system's Redis does not answer at {redact_text(url)}: {cause}", data_dir, config_file)
    return EXIT_ERROR


def _say_away(words: str, data_dir: Path, config_file: Path | None) -> None:
    """Say that a store does not answer; of a system that was killed with all it had started, that it was."""
    if config_file is None and DataDir(data_dir).is_abandoned:
        words = f"Nothing runs in {data_dir} any more: it was killed. Start it again with `lobbyctl up`."
    print(words, file=sys.stderr)


def _connect(url: str) -> Redis:
    try:
        return connect(url)
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from None
