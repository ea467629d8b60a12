"""`lobbyctl audit tail | search`: who did what, from Redis or from all that is in SQL."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from runtime.config import ConfigError
from scripts.commands.system import Stores, with_redis, with_stores
from storage.audit import ALLOWED, BATCH, DENIED, Audit, Row, Search, search

FIELDS = ("time", "who", "action", "resource", "result", "policy")

Wanted = tuple[str | None, str | None, str | None, str | None, str | None]
"""Who, action, resource, result and since."""


async def tail(data_dir: Path, config_file: Path | None, count: int, *, as_json: bool) -> int:
    """Print the newest lines. Answers the exit code."""

    async def work(redis: Redis) -> None:
        lines = await Audit(redis).tail(count)
        if as_json:
            found = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]
            print(json.dumps({"entries": found}, ensure_ascii=False))
        else:
            print(*lines, sep="\n")

    return await with_redis(data_dir, config_file, work)


async def search_all(
    data_dir: Path, config_file: Path | None, wanted: Wanted, count: int, *, as_json: bool
) -> int:
    """Print what fits. Answers the exit code. Raises ConfigError."""
    looked_for = _search(wanted)

    async def work(stores: Stores) -> None:
        # What was written down a moment ago is to be found, too, whether or not a worker runs.
        while await Audit(stores.redis).drain(stores.database) == BATCH:
            pass
        found = [_shown(row) for row in await search(stores.database, looked_for, count)]
        if as_json:
            print(json.dumps({"entries": found}, ensure_ascii=False))
        else:
            print(*("|".join((*(row[name] for name in FIELDS), row["reason"])) for row in found), sep="\n")

    return await with_stores(data_dir, config_file, work)


def _search(wanted: Wanted) -> Search:
    who, action, resource, result, since = wanted
    result = None if result is None else result.upper()
    if result not in {None, ALLOWED, DENIED}:
        raise ConfigError(f"--result {result}: it is {ALLOWED} or {DENIED}")
    return Search(who, action, resource, result, None if since is None else _milliseconds(since))


def _milliseconds(since: str) -> int:
    try:
        at = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError(f"--since {since}: it is no time such as 2024-12-18T10:00Z") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _shown(row: Row) -> dict[str, Any]:
    at = datetime.fromtimestamp(row.at_ms / 1000, UTC)
    return {
        "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "who": row.who,
        "action": row.action,
        "resource": row.resource,
        "result": row.result,
        "policy": row.policy,
        "reason": row.reason,
    }
