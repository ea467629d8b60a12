"""Accounts: SQL decides who has a name, Redis only saves reads, and a registration counts once."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import pytest
from redis.asyncio import Redis
from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.sealing import Undecipherable
from storage import keys
from storage.accounts import Accounts
from storage.connections import connect
from storage.database import Database
from storage.errors import StoreAway
from storage.migrations import migrate
from storage.tables import users as users_table
from storage.users import AccountStatus, Added, EmailTaken, NewUser, Row, User, UsernameTaken, Users, fold
from tests.servers import MariaServer, RedisServer
from tests.storage.people import NEW, SECRETS

MADE = User(
    user_id="user123",
    email="User@Example.com",
    nickname="닉네임 🎮",
    password_hash=NEW.password_hash,
    role="NORMAL",
    status=AccountStatus.ACTIVE,
    created_at=1_734_516_000_123,
)


@pytest.fixture
def users(database: Database, redis: Redis) -> Users:
    return Users(database, redis, SECRETS)


async def count(database: Database) -> int:
    async def work(connection: AsyncConnection) -> int:
        return await connection.scalar(select(func.count()).select_from(users_table)) or 0

    return await database.read(work)


async def set_in_sql(database: Database, **values: str) -> None:
    await database.transaction(lambda connection: connection.execute(update(users_table).values(values)))


def outcomes(results: Iterable[Added | BaseException]) -> list[str]:
    return sorted(
        ("created" if result.created else "repeated") if isinstance(result, Added) else type(result).__name__
        for result in results
    )


def test_a_username_is_folded_to_lower_case() -> None:
    assert fold("User_1.x-Y") == "user_1.x-y"


async def test_an_account_is_made_and_found(users: Users) -> None:
    assert await users.get("user123") is None
    assert await users.taken("user123", NEW.email) is None
    assert await users.add(NEW) == Added(MADE, created=True)
    assert await users.get("user123") == MADE
    assert await users.taken("user123", "else@example.com") == "username"
    assert await users.taken("else", NEW.email) == "email"
    assert await users.taken("else", "else@example.com") is None


async def test_the_cache_has_the_fields_of_the_design(users: Users, redis: Redis) -> None:
    await users.add(NEW)
    cached = cast("dict[bytes, bytes]", await redis.hgetall("user:user123"))
    email = cached.pop(b"email").decode()
    assert cached == {
        b"username": b"user123",
        b"nickname": "닉네임 🎮".encode(),
        b"role": b"NORMAL",
        b"status": b"ACTIVE",
        b"created_at": b"2024-12-18T10:00:00.123Z",
        b"password_hash": NEW.password_hash.encode(),
    }
    assert SECRETS.encryption.decrypt(email, "email of user123") == NEW.email
    assert 3500 < await redis.ttl("user:user123") <= 3600
    assert await redis.smembers("usernames") == {b"user123"}
    (hashed,) = await redis.smembers("emails")
    assert b"example" not in hashed


async def test_no_address_is_readable_in_sql(users: Users, database: Database) -> None:
    await users.add(NEW)

    async def row(connection: AsyncConnection) -> str:
        return str((await connection.execute(select(users_table))).one())

    assert "example" not in (await database.read(row)).lower()


async def test_a_lost_cache_is_filled_again_from_sql(users: Users, redis: Redis) -> None:
    await users.add(NEW)
    await redis.flushall()
    assert await users.taken("user123", NEW.email) is None
    assert await users.get("user123") == MADE
    assert await redis.hget(keys.user("user123"), "username") == b"user123"
    assert await users.taken("user123", "else@example.com") == "username"
    assert await users.taken("else", NEW.email) == "email"


async def test_a_hash_that_lacks_a_field_is_read_anew(users: Users, redis: Redis) -> None:
    await users.add(NEW)
    await redis.hdel(keys.user("user123"), "password_hash")
    assert await users.get("user123") == MADE


async def test_a_cached_account_needs_no_sql(users: Users, database: Database) -> None:
    await users.add(NEW)
    await database.transaction(lambda connection: connection.execute(delete(users_table)))
    assert await users.get("user123") == MADE


async def test_what_sql_says_of_an_account_comes_through(
    users: Users, database: Database, redis: Redis
) -> None:
    await users.add(NEW)
    await set_in_sql(database, status="DISABLED", role="ADMIN")
    await redis.delete(keys.user("user123"))
    expected = replace(MADE, status=AccountStatus.DISABLED, role="ADMIN")
    assert await users.get("user123") == expected
    assert await users.get("user123") == expected  # from the cache


async def test_sql_decides_when_redis_knows_nothing(users: Users, redis: Redis) -> None:
    await users.add(NEW)
    await redis.flushall()
    with pytest.raises(UsernameTaken):
        await users.add(replace(NEW, email="else@example.com", registration_id="request-2"))
    with pytest.raises(EmailTaken):
        await users.add(replace(NEW, user_id="else", registration_id="request-2"))
    with pytest.raises(UsernameTaken):
        await users.add(replace(NEW, registration_id="request-2"))


@pytest.mark.parametrize("same", ["user@example.com", "USER@EXAMPLE.COM"])
async def test_an_address_is_the_same_in_any_case(users: Users, same: str) -> None:
    await users.add(NEW)
    assert await users.taken("else", same) == "email"
    with pytest.raises(EmailTaken):
        await users.add(replace(NEW, user_id="else", email=same, registration_id="request-2"))


async def test_names_that_only_look_alike_are_two(users: Users, database: Database) -> None:
    for number, user_id in enumerate(["a.b", "a_b", "a-b", "ab_", "ab-"]):
        await users.add(replace(NEW, user_id=user_id, email=f"{number}@x.kr", registration_id="request-1"))
    assert await count(database) == 5


async def test_the_repeat_of_a_registration_finds_its_own_account(users: Users, database: Database) -> None:
    await users.add(NEW)
    repeat = replace(NEW, password_hash="$2b$04$" + "y" * 53, created_at=NEW.created_at + 1)
    assert await users.add(repeat) == Added(MADE, created=False)
    assert await users.registered("user123", "request-1") == MADE
    assert await users.registered("user123", "request-2") is None
    assert await users.registered("else", "request-1") is None
    assert await count(database) == 1


async def test_racing_registrations_of_a_username_make_one_account(users: Users, database: Database) -> None:
    racing = [replace(NEW, email=f"{n}@example.com", registration_id=f"request-{n}") for n in range(20)]
    results = await asyncio.gather(*map(users.add, racing), return_exceptions=True)
    assert outcomes(results) == ["UsernameTaken"] * 19 + ["created"]
    assert await count(database) == 1


async def test_racing_registrations_of_an_address_make_one_account(users: Users, database: Database) -> None:
    racing = [replace(NEW, user_id=f"user{n}", registration_id=f"request-{n}") for n in range(20)]
    results = await asyncio.gather(*map(users.add, racing), return_exceptions=True)
    assert outcomes(results) == ["EmailTaken"] * 19 + ["created"]
    assert await count(database) == 1


async def test_racing_repeats_of_one_registration_make_one_account(users: Users, database: Database) -> None:
    results = await asyncio.gather(*(users.add(NEW) for _ in range(20)), return_exceptions=True)
    assert outcomes(results) == ["created"] + ["repeated"] * 19
    assert await count(database) == 1


async def test_hundreds_look_up_accounts_at_once(users: Users, redis: Redis) -> None:
    names = [f"user{number}" for number in range(10)]
    for number, name in enumerate(names):
        await users.add(replace(NEW, user_id=name, email=f"{number}@x.kr"))
    await redis.delete(*(keys.user(name) for name in names[::2]))  # half of them only in SQL
    for _ in range(2):
        found = await asyncio.gather(*(users.get(name) for name in [*names, "nobody"] * 50))
        assert [user.user_id if user else None for user in found] == [*names, None] * 50


async def test_one_who_stops_waiting_does_not_stop_the_others(users: Users) -> None:
    await users.add(NEW)
    waiting = [asyncio.create_task(users.get("user123")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert await asyncio.gather(*waiting[1:]) == [MADE, MADE]


async def test_the_longest_of_everything_fits(users: Users, redis: Redis) -> None:
    longest = NewUser(
        user_id="x" * 32,
        email="메" * 252 + "@k",
        nickname="🎮" * 32,
        password_hash="x" * 60,
        registration_id="키" * 64 + ":" + "x" * 63,
        created_at=253_402_300_799_999,  # the last millisecond of the year 9999
    )
    added = await users.add(longest)
    await redis.delete(keys.user(longest.user_id))
    assert await users.get(longest.user_id) == added.user
    assert await users.get(longest.user_id) == added.user
    assert (await users.add(longest)).created is False


async def test_neither_address_nor_hash_shows_when_an_account_is_printed(users: Users) -> None:
    user = (await users.add(NEW)).user
    assert user.email not in f"{user}{NEW}"
    assert user.password_hash not in f"{user}{NEW}"


async def test_without_redis_accounts_are_made_but_not_looked_up(
    database: Database, own_redis: RedisServer
) -> None:
    async with connect(own_redis.url) as redis:
        users = Users(database, redis, SECRETS)
        own_redis.stop()
        for asking in (users.get("user123"), users.taken("user123", NEW.email)):
            with pytest.raises(StoreAway):
                await asking
        assert await users.add(NEW) == Added(MADE, created=True)
        own_redis.start()
        assert await users.get("user123") == MADE
        assert await users.taken("user123", NEW.email) == "username"


async def test_without_mariadb_nothing_is_made_and_the_cache_still_answers(
    own_mariadb: MariaServer, redis: Redis
) -> None:
    url = own_mariadb.create_database("lobbyd")
    await migrate(url)
    database = Database(url)
    users = Users(database, redis, SECRETS)
    await users.add(NEW)
    other = replace(NEW, user_id="else", email="else@example.com")
    own_mariadb.stop()
    assert await users.get("user123") == MADE
    for asking in (users.get("else"), users.add(other), users.registered("user123", "request-1")):
        with pytest.raises(StoreAway):
            await asking
    assert await users.taken("else", other.email) is None
    own_mariadb.start()
    assert await users.get("else") is None
    assert (await users.add(other)).created
    await database.close()


async def test_an_address_moved_to_another_account_spoils_that_one_alone(
    users: Users, database: Database
) -> None:
    await users.add(NEW)

    async def copy(connection: AsyncConnection) -> None:
        row = (await connection.execute(select(users_table))).one()._asdict()
        await connection.execute(
            insert(users_table).values({**row, "user_id": "thief", "email_hash": "0" * 64})
        )

    await database.transaction(copy)
    robbed, thief = await asyncio.gather(users.get("user123"), users.get("thief"), return_exceptions=True)
    assert robbed == MADE
    assert isinstance(thief, Undecipherable)


async def test_what_was_read_before_a_change_is_not_cached_after_it(
    users: Users, database: Database, redis: Redis
) -> None:
    """A reader that is slow between SQL and Redis must not bring back what an operator has changed."""
    await users.add(NEW)
    await redis.delete(keys.user("user123"))
    slow = Users(database, redis, SECRETS)
    find, changed = slow._find, asyncio.Event()

    async def find_and_wait(which: ColumnElement[bool]) -> list[Row]:
        found = await find(which)
        await Accounts(database, redis).set_status("user123", AccountStatus.DISABLED)
        changed.set()
        return found

    slow._find = find_and_wait  # type: ignore[method-assign]
    assert await slow.get("user123") == MADE
    assert changed.is_set()
    assert await users.get("user123") == replace(MADE, status=AccountStatus.DISABLED)


async def test_an_account_that_is_changed_while_it_is_made_is_not_cached_as_it_was(
    users: Users, database: Database, redis: Redis
) -> None:
    remember = users._remember

    async def change_and_remember(rows: Sequence[Row], mark: str) -> None:
        await Accounts(database, redis).set_role("user123", "ADMIN")
        await remember(rows, mark)

    users._remember = change_and_remember  # type: ignore[method-assign]
    await users.add(NEW)
    users._remember = remember  # type: ignore[method-assign]
    assert await users.get("user123") == replace(MADE, role="ADMIN")
