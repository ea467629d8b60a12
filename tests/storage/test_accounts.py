"""Accounts as operators see and change them, on both databases."""

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from storage import keys
from storage.accounts import Account, AccountNotFound, Accounts
from storage.connections import connect
from storage.database import Database
from storage.errors import StoreAway
from storage.users import AccountStatus, Users
from tests.servers import RedisServer
from tests.storage.people import NEW, SECRETS

FOUND = Account("user123", NEW.nickname, "NORMAL", AccountStatus.ACTIVE, NEW.created_at)


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """One kind of Redis: nothing here depends on it."""
    return valkey_url


@pytest.fixture
async def users(database: Database, redis: Redis) -> Users:
    users = Users(database, redis, SECRETS)
    await users.add(NEW)
    return users


@pytest.mark.usefixtures("users")
async def test_an_account_is_found_and_changed(database: Database, redis: Redis) -> None:
    accounts = Accounts(database, redis)
    assert await accounts.find("user123") == FOUND
    assert await accounts.set_status("user123", AccountStatus.DISABLED) == FOUND
    assert await accounts.set_role("user123", "ADMIN") == replace(FOUND, status=AccountStatus.DISABLED)
    assert await accounts.find("user123") == replace(FOUND, status=AccountStatus.DISABLED, role="ADMIN")
    assert (await accounts.set_status("user123", AccountStatus.ACTIVE)).status is AccountStatus.DISABLED


async def test_a_change_is_seen_at_once_by_who_has_it_cached(
    users: Users, database: Database, redis: Redis
) -> None:
    accounts = Accounts(database, redis)
    for status in (AccountStatus.DISABLED, AccountStatus.ACTIVE) * 2:
        assert await users.get("user123")
        await accounts.set_status("user123", status)
        user = await users.get("user123")
        assert user is not None
        assert user.status is status


async def test_changes_at_once_leave_the_cache_as_sql_is(
    users: Users, database: Database, redis: Redis
) -> None:
    accounts = Accounts(database, redis)
    roles = [f"ROLE_{number}" for number in range(10)]
    await asyncio.gather(*(accounts.set_role("user123", role) for role in roles), users.get("user123"))
    user = await users.get("user123")
    assert user is not None
    assert user.role == (await accounts.find("user123")).role


async def test_of_who_is_nobody_nothing_is_changed(database: Database, redis: Redis) -> None:
    accounts = Accounts(database, redis)
    for work in (
        accounts.find("nobody"),
        accounts.set_role("nobody", "ADMIN"),
        accounts.set_status("nobody", AccountStatus.DISABLED),
    ):
        with pytest.raises(AccountNotFound):
            await work


@pytest.mark.usefixtures("users")
async def test_what_met_a_redis_that_is_away_can_be_repeated(
    database: Database, own_redis: RedisServer
) -> None:
    async with connect(own_redis.url) as away:
        own_redis.kill()
        with pytest.raises(StoreAway):
            await Accounts(database, away).set_status("user123", AccountStatus.DISABLED)
    own_redis.start()
    async with connect(own_redis.url) as back:
        await back.set(keys.user("user123"), "stale")
        before = await Accounts(database, back).set_status("user123", AccountStatus.DISABLED)
        assert before.status is AccountStatus.DISABLED
        assert not await back.exists(keys.user("user123"))
