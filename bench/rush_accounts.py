"""Accounts for the rush, each with a refresh token: players who were here before and come back.

They are written in bulk, and their families of tokens as `storage.sessions` leaves them after a sign-in.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import bcrypt
from redis.asyncio import Redis
from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.rush_story import tier_of
from bench.system import System
from runtime.secrets import Purpose, Secrets
from runtime.settings import AuthSettings
from storage import keys
from storage.connections import connect
from storage.database import Database
from storage.tables import group_members, users
from storage.users import NORMAL_ROLE, AccountStatus, email_context
from workers.login.tokens import Tokens, new_family

BATCH = 2000
TIME_LIMIT_S = 60.0
LOWEST_COST = 4
"""Nobody logs in by password here: the hash is one that nobody waits for."""

FIRST_NUMBER = 1

GROUPS = {"VIP": "VIP_Users", "PREMIUM": "Premium_Users"}
"""The groups that give a tier."""


async def make_accounts(system: System, count: int) -> list[str]:
    """Make so many accounts. Answers a refresh token for each."""
    secrets = Secrets(system.secret.encode())
    tokens = Tokens(secrets, AuthSettings().access_token_ttl_s)
    password_hash = bcrypt.hashpw(b"nobody's password", bcrypt.gensalt(LOWEST_COST)).decode()
    names = [f"player{number:06}" for number in range(count)]
    made: list[str] = []
    database = Database(system.database_url, time_limit_s=TIME_LIMIT_S)
    async with connect(system.redis_url) as redis:
        for start in range(0, count, BATCH):
            batch = names[start : start + BATCH]
            await _insert(database, users, [_row(secrets, name, password_hash) for name in batch])
            members = [(GROUPS.get(tier_of(number), ""), name) for number, name in enumerate(batch, start)]
            await _insert(database, group_members, [_membership(*each) for each in members if each[0]])
            made += await _give_tokens(redis, tokens, batch)
    await database.close()
    return made


def _row(secrets: Secrets, name: str, password_hash: str) -> dict[str, Any]:
    """A row as `storage.users` makes it; the context of the email is its too."""
    email = f"{name}@example.com"
    return {
        "user_id": name,
        "email_hash": secrets.keyed_hash(Purpose.EMAIL, email),
        "email": secrets.encryption.encrypt(email, email_context(name)),
        "nickname": name,
        "password_hash": password_hash,
        "role": NORMAL_ROLE,
        "status": AccountStatus.ACTIVE.value,
        "created_at": int(time.time() * 1000),
        "registration_id": name,
    }


def _membership(group: str, name: str) -> dict[str, Any]:
    return {"group_id": group, "user_id": name, "created_at": int(time.time() * 1000)}


async def _insert(database: Database, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    async def put(connection: AsyncConnection) -> None:
        await connection.execute(insert(table), rows)

    if rows:
        await database.transaction(put)


async def _give_tokens(redis: Redis, tokens: Tokens, names: Sequence[str]) -> list[str]:
    """Begin a family for each user. Answers their first tokens."""
    life_s = AuthSettings().refresh_token_ttl_s
    expires_s = time.time() + life_s
    expires_at = datetime.fromtimestamp(expires_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    given = []
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            first = tokens.next_refresh(name, new_family(), FIRST_NUMBER)
            stored = f"{first.number}|{first.hash}|{int(expires_s * 1000)}"
            fields: dict[Any, Any] = {
                f"family:{first.family}": stored,
                "token": first.hash,
                "expires_at": expires_at,
                "role": NORMAL_ROLE,
                "permissions": "",
            }
            pipeline.hset(keys.refresh_tokens(name), mapping=fields)
            pipeline.pexpire(keys.refresh_tokens(name), int(life_s * 1000))
            given.append(tokens.refresh(name, first.family, first.number))
        await pipeline.execute()
    return given
