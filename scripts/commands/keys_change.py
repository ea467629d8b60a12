"""`lobbyctl keys list | rotate | reencrypt`: which key encrypts what is stored, and what came of a change."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from runtime.daemon import EXIT_ERROR
from runtime.secrets import Secrets
from scripts.commands.operators import operator
from scripts.commands.system import with_database, with_redis
from storage.audit import ALLOWED, Audit, Entry
from storage.database import Database
from storage.keyring import FOLLOWED_WITHIN_S, KeyRing
from storage.reencryption import count, reencrypt as encrypt_again

TELL_EVERY = 20_000
"""Rows between two lines that say how far it is."""

MOST_NAMED = 20


async def show(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print every key and how much it encrypts. Answers the exit code."""

    async def work(database: Database, secrets: Secrets) -> None:
        ring = KeyRing(database, secrets)
        await ring.open()
        keys = await ring.keys()
        encrypted = await count(database, [key.key_id for key in keys])
        found: list[dict[str, Any]] = [
            {
                "keyId": key.key_id,
                "current": key.is_current,
                "createdAt": datetime.fromtimestamp(key.created_at // 1000, UTC).strftime(
                    "%Y-%m-%dT%H:%M:%SZ"
                ),
                "createdBy": key.created_by,
                "encrypts": encrypted[key.key_id],
            }
            for key in keys
        ]
        if as_json:
            print(json.dumps({"keys": found}))
            return
        for key in found:
            state = "current" if key["current"] else "old"
            print(
                f"{key['keyId']:<16}  {state:<7}  since {key['createdAt']} by {key['createdBy']}, "
                f"encrypts {key['encrypts']:,}"
            )

    return await with_database(data_dir, config_file, work)


async def rotate(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Make a new key current, wait until every process uses it, then encrypt all with it.

    Answers the exit code.
    """

    async def write_down(redis: Redis) -> None:
        await Audit(redis).append([Entry(operator(), "keys:rotate", "encryption_keys", ALLOWED, "lobbyctl")])

    async def work(database: Database, secrets: Secrets) -> int | None:
        ring = KeyRing(database, secrets)
        await ring.open()
        # First, so that no key is made that the audit log does not know of.
        refused = await with_redis(data_dir, config_file, write_down)
        if refused:
            return refused
        key_id = await ring.rotate(operator())
        print(
            f"{key_id} is the current key; every process uses it within {FOLLOWED_WITHIN_S:g} s.",
            file=sys.stderr,
        )
        await asyncio.sleep(FOLLOWED_WITHIN_S)
        return await _reencrypt(database, secrets, as_json=as_json)

    return await with_database(data_dir, config_file, work)


async def reencrypt(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Encrypt with the current key what older ones encrypted. Answers the exit code."""

    async def work(database: Database, secrets: Secrets) -> int | None:
        await KeyRing(database, secrets).open()
        return await _reencrypt(database, secrets, as_json=as_json)

    return await with_database(data_dir, config_file, work)


async def _reencrypt(database: Database, secrets: Secrets, *, as_json: bool) -> int | None:
    seen = changed = told = 0
    undecipherable: list[str] = []
    async for progress in encrypt_again(database, secrets.encryption):
        seen += progress.seen
        changed += progress.changed
        undecipherable += progress.undecipherable
        if seen - told >= TELL_EVERY:
            told = seen
            print(f"{seen:,} looked at, {changed:,} encrypted again", file=sys.stderr)
    current = secrets.encryption.current_id
    if as_json:
        found = {"keyId": current, "seen": seen, "changed": changed, "undecipherable": undecipherable}
        print(json.dumps(found))
    else:
        print(f"Looked at {seen:,} fields; encrypted {changed:,} again, with {current}.")
    if not undecipherable:
        return None
    named = ", ".join(undecipherable[:MOST_NAMED])
    print(
        f"{len(undecipherable):,} cannot be deciphered and stay as they are; restore them from a backup: "
        f"{named}",
        file=sys.stderr,
    )
    return EXIT_ERROR
