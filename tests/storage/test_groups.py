"""Groups: SQL decides who belongs to which, and no cache outlives a change."""

import asyncio
import random
from collections.abc import Set
from typing import TypeVar

import pytest
from redis.asyncio import Redis
from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.connections import connect, connect_wire
from storage.database import Database
from storage.errors import StoreAway
from storage.groups import BATCH, Group, GroupNotFound, Groups, UserNotFound
from storage.migrations import migrate
from storage.tables import group_members, groups as groups_table
from tests.servers import MariaServer, RedisServer
from tests.storage.people import held, register

T = TypeVar("T")

VIP = "VIP_Users"
PREMIUM = "Premium_Users"


@pytest.fixture
async def database(database: Database) -> Database:
    """One with three people."""
    await register(database, "anna", "ben", "carl")
    return database


@pytest.fixture
def groups(database: Database, redis: Redis) -> Groups:
    return Groups(database, redis)


async def forget_in_sql(database: Database) -> None:
    await database.transaction(lambda connection: connection.execute(delete(group_members)))


async def members(database: Database) -> set[tuple[str, str]]:
    async def work(connection: AsyncConnection) -> set[tuple[str, str]]:
        rows = await connection.execute(select(group_members.c.group_id, group_members.c.user_id))
        return {(group_id, user_id) for group_id, user_id in rows}

    return await database.read(work)


async def cached(redis: Redis, user_id: str) -> Set[bytes]:
    found: Set[bytes] = await redis.execute_command("SMEMBERS", f"iam:user:{user_id}:groups")
    return set(found)


async def test_the_groups_of_the_waiting_room_are_there_from_the_start(groups: Groups) -> None:
    premium, vip = await groups.all()
    assert premium == Group(
        PREMIUM, "Premium Users", "Premium 사용자 그룹", ("queue_priority",), premium.created_at
    )
    permissions = ("queue_priority", "game_early_access")
    assert vip == Group(VIP, "VIP Users", "VIP 사용자 그룹", permissions, vip.created_at)


async def test_a_migration_that_was_cut_short_leaves_the_groups_that_are_there(
    database_url: str, database: Database, groups: Groups
) -> None:
    before = await groups.all()
    await groups.add(VIP, "anna")

    async def cut_short(connection: AsyncConnection) -> None:
        await connection.execute(delete(groups_table).where(groups_table.c.group_id == PREMIUM))
        await connection.execute(text("DELETE FROM alembic_version"))

    await database.transaction(cut_short)
    await migrate(database_url)
    after = await groups.all()
    assert [group.group_id for group in after] == [PREMIUM, VIP]
    assert after[1] == before[1]
    assert await members(database) == {(VIP, "anna")}


async def test_a_group_without_permissions_has_none(database: Database, groups: Groups) -> None:
    row = {"group_id": "A", "group_name": "가", "description": "", "permissions": "", "created_at": 1}
    await database.transaction(lambda connection: connection.execute(insert(groups_table), [row]))
    assert (await groups.all())[0] == Group("A", "가", "", (), 1)


async def test_members_come_and_go(groups: Groups) -> None:
    assert await groups.of("anna") == frozenset()
    await groups.add(VIP, "anna")
    assert await groups.of("anna") == {VIP}
    await groups.add(PREMIUM, "anna")
    assert await groups.of("anna") == {VIP, PREMIUM}
    assert await groups.of("ben") == frozenset()
    await groups.remove(VIP, "anna")
    assert await groups.of("anna") == {PREMIUM}


async def test_a_change_made_by_one_process_is_seen_by_the_others(
    database: Database, redis: Redis, groups: Groups
) -> None:
    other = Groups(database, redis)
    assert await groups.of("anna") == await other.of("anna") == frozenset()
    await other.add(VIP, "anna")
    assert await groups.of("anna") == {VIP}
    await other.remove(VIP, "anna")
    assert await groups.of("anna") == frozenset()


async def test_adding_and_removing_again_change_nothing(database: Database, groups: Groups) -> None:
    for _ in range(2):
        await groups.add(VIP, "anna")
        assert await members(database) == {(VIP, "anna")}
    for _ in range(2):
        await groups.remove(VIP, "anna")
        assert await members(database) == set()


async def test_what_is_unknown_is_said(database: Database, groups: Groups) -> None:
    for change in (groups.add, groups.remove):
        with pytest.raises(GroupNotFound, match="vip_users"):
            await change("vip_users", "anna")
        with pytest.raises(UserNotFound, match="nobody"):
            await change(VIP, "nobody")
    with pytest.raises(UserNotFound, match="nobody"):
        await groups.add_many(VIP, ["anna", "nobody", "ben"])
    assert await members(database) == set()
    assert await groups.of("nobody") == frozenset()


async def test_the_cache_is_a_set_of_group_ids_for_an_hour(groups: Groups, redis: Redis) -> None:
    await groups.add(VIP, "anna")
    await groups.add(PREMIUM, "anna")
    await groups.of("anna")
    assert await cached(redis, "anna") == {VIP.encode(), PREMIUM.encode()}
    assert 3500 < await redis.ttl("iam:user:anna:groups") <= 3600


async def test_a_cached_membership_needs_no_sql(groups: Groups, database: Database) -> None:
    await groups.add(VIP, "anna")
    assert await groups.of("anna") == {VIP}
    await forget_in_sql(database)
    assert await groups.of("anna") == {VIP}


async def test_that_a_user_has_no_groups_is_cached(groups: Groups, database: Database, redis: Redis) -> None:
    assert await groups.of("anna") == frozenset()
    assert await cached(redis, "anna") == {b""}
    assert 3500 < await redis.ttl("iam:user:anna:groups") <= 3600
    row = {"group_id": VIP, "user_id": "anna", "created_at": 1}
    await database.transaction(lambda connection: connection.execute(insert(group_members), [row]))
    assert await groups.of("anna") == frozenset()


async def test_a_lost_cache_is_filled_again_from_sql(groups: Groups, redis: Redis) -> None:
    await groups.add(VIP, "anna")
    await groups.of("anna")
    await redis.flushall()
    await redis.function_flush()
    assert await groups.of("anna") == {VIP}
    assert await cached(redis, "anna") == {VIP.encode()}


async def test_what_was_read_before_a_change_is_not_cached_after_it(
    groups: Groups, database_url: str, redis: Redis
) -> None:
    async with held(database_url) as slow:
        reading = asyncio.create_task(Groups(slow, redis).of("anna"))
        await slow.has_read.wait()
        await groups.add(VIP, "anna")
        slow.go_on.set()
        assert await reading == frozenset()
    assert await groups.of("anna") == {VIP}


async def test_a_late_reader_does_not_take_another_readers_place(
    groups: Groups, database_url: str, redis: Redis
) -> None:
    async with held(database_url) as early, held(database_url) as late:
        reading_early = asyncio.create_task(Groups(early, redis).of("anna"))
        await early.has_read.wait()
        await groups.add(VIP, "anna")
        reading_late = asyncio.create_task(Groups(late, redis).of("anna"))
        await late.has_read.wait()
        early.go_on.set()
        assert await reading_early == frozenset()
        late.go_on.set()
        assert await reading_late == {VIP}
    assert await cached(redis, "anna") == {VIP.encode()}


async def test_readers_that_never_end_leave_nothing_behind(
    groups: Groups, database_url: str, redis: Redis
) -> None:
    async with held(database_url) as slow:
        readings = [asyncio.create_task(Groups(slow, redis).of("anna")) for _ in range(3)]
        while slow.reads < 3:
            await asyncio.sleep(0.01)
        assert {member[:1] for member in await cached(redis, "anna")} == {b"?"}
        assert 0 < await redis.ttl("iam:user:anna:groups") <= 10
        assert await groups.of("anna") == frozenset()
        assert await cached(redis, "anna") == {b""}
        slow.go_on.set()
        assert await asyncio.gather(*readings) == [frozenset()] * 3
    assert 3500 < await redis.ttl("iam:user:anna:groups") <= 3600


async def test_racing_adds_make_one_membership_each(groups: Groups, database: Database) -> None:
    wanted = {(group_id, user_id) for group_id in (VIP, PREMIUM) for user_id in ("anna", "ben", "carl")}
    await asyncio.gather(*(groups.add(*each) for each in [*wanted] * 5))
    assert await members(database) == wanted
    assert await groups.of("anna") == {VIP, PREMIUM}


async def test_whatever_races_the_cache_agrees_with_sql_in_the_end(database: Database, redis: Redis) -> None:
    processes = [Groups(database, redis) for _ in range(3)]
    chance = random.Random(1)

    async def change_and_look() -> None:
        for _ in range(10):
            groups, user_id = chance.choice(processes), chance.choice(["anna", "ben"])
            if chance.random() < 0.3:
                await chance.choice([groups.add, groups.remove])(chance.choice([VIP, PREMIUM]), user_id)
            await groups.of(user_id)

    await asyncio.gather(*(change_and_look() for _ in range(5)))
    truth = await members(database)
    for user_id in ("anna", "ben"):
        expected = {group_id for group_id, member in truth if member == user_id}
        assert [await groups.of(user_id) for groups in processes] == [expected] * 3


async def test_many_are_added_at_once(groups: Groups, database: Database) -> None:
    many = [f"user{number}" for number in range(2 * BATCH + 1)]
    await register(database, *many)
    await groups.add(VIP, many[5])
    assert await groups.of(many[-1]) == frozenset()
    await groups.add_many(VIP, [*many, many[0], many[0]])
    assert await members(database) == {(VIP, user_id) for user_id in many}
    for _ in range(2):  # from SQL, then from the cache
        found = await asyncio.gather(*map(groups.of, many))
        assert found == [{VIP}] * len(many)
    await groups.add_many(VIP, [])


async def test_hundreds_who_ask_at_once_cost_one_read(
    groups: Groups, database_url: str, redis: Redis
) -> None:
    await groups.add(VIP, "anna")
    await groups.add(PREMIUM, "ben")
    await groups.of("ben")  # cached, the others are not
    async with held(database_url) as counting:
        counting.go_on.set()
        others = Groups(counting, redis)
        found = await asyncio.gather(*(others.of(name) for name in ["anna", "ben", "carl"] * 100))
        assert found == [{VIP}, {PREMIUM}, frozenset()] * 100
        assert counting.reads == 1


async def test_groups_can_be_asked_over_the_thin_connection(database: Database, redis_url: str) -> None:
    wire = connect_wire(redis_url)
    groups = Groups(database, wire)
    await groups.add(VIP, "anna")
    for _ in range(2):
        assert [await groups.of(name) for name in ("anna", "ben")] == [{VIP}, frozenset()]
    await wire.aclose()


async def test_without_redis_a_change_is_made_good_by_its_repeat(
    database: Database, own_redis: RedisServer
) -> None:
    async with connect(own_redis.url) as redis:
        groups = Groups(database, redis)
        assert await groups.of("anna") == frozenset()
        own_redis.stop()
        for asking in (groups.of("anna"), groups.add(VIP, "anna")):
            with pytest.raises(StoreAway):
                await asking
        assert [group.group_id for group in await groups.all()] == [PREMIUM, VIP]
        own_redis.start()
        await groups.add(VIP, "anna")
        assert await groups.of("anna") == {VIP}
    assert await members(database) == {(VIP, "anna")}


async def test_without_mariadb_nothing_changes_and_the_cache_still_answers(
    own_mariadb: MariaServer, redis: Redis
) -> None:
    url = own_mariadb.create_database("lobbyd")
    await migrate(url)
    database = Database(url)
    await register(database, "anna", "ben", "carl")
    groups = Groups(database, redis)
    await groups.add(VIP, "anna")
    assert [await groups.of(name) for name in ("anna", "ben")] == [{VIP}, frozenset()]
    own_mariadb.stop()
    assert [await groups.of(name) for name in ("anna", "ben")] == [{VIP}, frozenset()]
    changes = (groups.add(VIP, "ben"), groups.remove(VIP, "anna"), groups.add_many(VIP, ["carl"]))
    for asking in (groups.of("carl"), groups.all(), *changes):
        with pytest.raises(StoreAway):
            await asking
    own_mariadb.start()
    assert await groups.of("carl") == frozenset()
    await groups.add(VIP, "ben")
    assert await groups.of("ben") == {VIP}
    await database.close()
