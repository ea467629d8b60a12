"""`lobbyctl doctor`: the stores, the clock and the master secret."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from runtime.config import ConfigError
from runtime.logging import redact_text
from scripts.commands.doctor_found import Found, ok, warning, wrong
from scripts.commands.doctor_machine import sqlite_file
from scripts.commands.system import COMMAND_LIMIT_S, secrets_of
from storage.database import Database
from storage.errors import StoreAway, redis_away_is_store_away
from storage.keyring import KeyRing, OtherMasterSecret
from storage.migrations import revision

OLDEST_REDIS = 7
FULL_SHARE = 0.8
MOST_CLOCK_DIFFERENCE_S = 1.0
"""Requests carry deadlines of 10 s between machines; heartbeats count as missed after 15."""


async def redis(client: Redis, url: str) -> list[Found]:
    """What Redis says of itself. Raises StoreAway."""
    with redis_away_is_store_away():
        about: Mapping[str, Any] = await client.info()
    found = [_version(about, redact_text(url)), *_role(about), *_persistence(about), _memory(about)]
    found.append(await _clock(client))
    return found


def _version(about: Mapping[str, Any], url: str) -> Found:
    name = "Valkey" if about.get("server_name") == "valkey" else "Redis"
    version = str(about.get("valkey_version") or about.get("redis_version", "0"))
    if int(version.partition(".")[0]) < OLDEST_REDIS:
        return wrong(
            "redis", f"{name} {version} at {url} has no Functions", "Upgrade to Redis 7, or to Valkey."
        )
    return ok("redis", f"{name} {version} at {url}")


def _role(about: Mapping[str, Any]) -> Iterator[Found]:
    if about.get("role") == "slave":
        leader = f"{about.get('master_host')}:{about.get('master_port')}"
        yield wrong(
            "redis role", f"it is a replica of {leader} and takes no writes", "Set redis.url to the primary."
        )


def _persistence(about: Mapping[str, Any]) -> Iterator[Found]:
    check = "redis persistence"
    if about.get("aof_enabled") != 1:
        yield wrong(
            check,
            "nothing is written to an append-only file: a restart loses places, sessions and accepted work",
            "Set `appendonly yes` and `appendfsync everysec` in redis.conf, and CONFIG SET them.",
        )
    elif about.get("aof_last_write_status") != "ok":
        yield wrong(check, "the last write of the append-only file failed", "See Redis' log, and its disk.")
    else:
        yield ok(check, "append-only file")
    if about.get("rdb_last_bgsave_status", "ok") != "ok":
        yield wrong(check, "the last snapshot failed", "See Redis' log, its disk, and vm.overcommit_memory.")


def _memory(about: Mapping[str, Any]) -> Found:
    check = "redis memory"
    policy, most, used = about.get("maxmemory_policy"), int(about.get("maxmemory", 0)), about["used_memory"]
    if policy != "noeviction":
        return wrong(
            check,
            f"maxmemory-policy is {policy}: a Redis that is full throws queues and places away",
            "CONFIG SET maxmemory-policy noeviction, and write it into redis.conf.",
        )
    if most and used > FULL_SHARE * most:
        return wrong(
            check, f"{used / most:.0%} of maxmemory are used", "Raise maxmemory, or see what has grown."
        )
    return ok(check, f"noeviction, {used / 2**20:,.0f} MiB used")


async def _clock(client: Redis) -> Found:
    before_s = time.time()
    with redis_away_is_store_away():
        seconds, micros = await client.time()
    difference_s = seconds + micros / 1e6 - (before_s + time.time()) / 2
    if abs(difference_s) > MOST_CLOCK_DIFFERENCE_S:
        side = "ahead of" if difference_s > 0 else "behind"
        return wrong(
            "clock",
            f"Redis' clock is {abs(difference_s):.1f} s {side} this machine's",
            "Have every machine keep time (chrony, systemd-timesyncd): see `timedatectl`.",
        )
    return ok("clock", f"{abs(difference_s) * 1000:.0f} ms from Redis'")


async def database(url: str) -> Found:
    """Whether the database is there and has the schema that this release needs."""
    name, file = redact_text(url), sqlite_file(url)
    if file is not None and not file.exists():
        return wrong("database", f"there is no {file}", "Start a login worker, which makes it.")
    try:
        now = await revision(url)
    except StoreAway as error:
        return wrong("database", redact_text(str(error)), "Start it, or correct database.url.")
    if now.is_newer:
        return wrong(
            "database",
            f"its schema is {now.current}, of a newer release; this one knows those up to {now.head}",
            "Upgrade this machine too; workers of this release do not start again.",
        )
    if now.current != now.head:
        return wrong(
            "database",
            f"its schema is {now.current or 'empty'}, this release needs {now.head}",
            "Start a login worker of this release, which migrates; its log says what keeps it from that.",
        )
    return ok("database", f"{name}, schema {now.current}")


async def secret(data_dir: Path, config_file: Path | None, url: str | None) -> Found:
    """Whether there is a master secret, and the one with which the database was begun.

    `url` is None where there is no database with which it can be compared.
    """
    try:
        secrets = secrets_of(data_dir, config_file)
    except ConfigError as error:
        return wrong("secret", str(error), "Run this as who may read it; give every machine the same.")
    if url is None:
        return warning("secret", "cannot be compared with the database's", "See to the database first.")
    base = Database(url, time_limit_s=COMMAND_LIMIT_S)
    try:
        ring = KeyRing(base, secrets)
        keys = await ring.keys()
        if keys:
            await ring.follow()
    except OtherMasterSecret as error:
        return wrong("secret", str(error), "It is in the backups of whoever set this up; see operations.md.")
    except StoreAway as error:
        return warning("secret", f"cannot be compared: {redact_text(str(error))}", "Bring the database back.")
    finally:
        await base.close()
    if not keys:
        return warning("secret", "the database has no key yet", "Start a login worker: it makes the first.")
    return ok("secret", f"the database's; key {keys[-1].key_id} of {len(keys)} is current")
