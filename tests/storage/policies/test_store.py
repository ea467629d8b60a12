"""Policies in SQL and in the cache: a change is seen at once by all, and nothing older is cached after it."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import select, update

from storage import keys
from storage.connections import connect
from storage.database import Database
from storage.errors import StoreAway
from storage.group_catalogue import Definition, GroupCatalogue, GroupFault
from storage.groups import GroupNotFound, Groups
from storage.migrations import migrate
from storage.policies import Facts, Policies, PolicyFault, PolicyNotFound, PolicyWatch, Question
from storage.policies.policy import MOST_RULES, MOST_RULES_IN_ALL
from storage.tables import policies as policies_table
from tests.servers import MariaServer
from tests.storage.people import held, register
from tests.storage.policies.making import DEFAULTS, allow, deny, policy

JOIN = Question("queue:join", "queue:login", {})
ANNA = Facts("anna", "NORMAL", ["NORMAL"], [], [])


@pytest.fixture
def database_url(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture
def redis_url(pair: tuple[str, str]) -> str:
    return pair[1]


@pytest.fixture
def policies(database: Database, redis: Redis) -> Policies:
    return Policies(database, redis)


async def allowed(watch: PolicyWatch) -> bool:
    return (await watch.current()).decide(ANNA, JOIN).allowed


async def test_the_defaults_are_there_from_the_start(policies: Policies) -> None:
    book = await policies.load()
    assert list(book.policies) == sorted(DEFAULTS, key=lambda made: made.policy_id)
    assert book.groups["VIP_Users"].permissions == ("queue_priority", "game_early_access")


async def test_a_policy_comes_changes_and_goes(policies: Policies) -> None:
    watch = PolicyWatch(policies)
    assert not await allowed(watch)
    await policies.put(policy("p", allow()))
    assert await allowed(watch)
    await policies.put(policy("p", deny()))
    assert not await allowed(watch)
    await policies.put(policy("p", allow("queue:join")))
    assert await allowed(watch)
    await policies.remove("p")
    assert not await allowed(watch)
    with pytest.raises(PolicyNotFound):
        await policies.remove("p")


async def test_a_change_by_one_process_is_seen_by_the_others(
    database: Database, redis: Redis, policies: Policies
) -> None:
    others = [PolicyWatch(Policies(database, redis)) for _ in range(3)]
    assert not any([await allowed(other) for other in others])
    await policies.put(policy("p", allow()))
    assert all([await allowed(other) for other in others])
    await policies.put(policy("q", deny()))
    assert not any([await allowed(other) for other in others])


async def test_what_must_not_cost_a_round_trip_sees_a_change_within_a_second(policies: Policies) -> None:
    watch = PolicyWatch(policies)
    before = await watch.recent()
    await policies.put(policy("p", allow()))
    await asyncio.sleep(1.0)
    assert (await watch.recent()).version != before.version
    assert (await watch.recent()).decide(ANNA, JOIN).allowed


async def test_the_cache_has_the_fields_that_programs_read(policies: Policies, redis: Redis) -> None:
    await policies.put(policy("policy123", allow("queue:join", "queue:login", 'user.role == "VIP"')))
    await policies.load()
    cached: Any = await redis.hgetall("iam:policies:policy123")
    assert json.loads(cached[b"rules"]) == [
        {"action": "queue:join", "resource": "queue:login", "condition": 'user.role == "VIP"'}
    ]
    assert cached[b"policyName"] == b"policy123"
    group: Any = await redis.hgetall("iam:groups:VIP_Users")
    assert group[b"groupName"] == b"VIP Users"
    assert group[b"permissions"] == b"queue_priority,game_early_access"
    version: Any = await redis.get("iam:policy:cache:last_update")
    assert version.endswith(b"Z")
    for name in await redis.keys():
        if name not in {keys.POLICY_VERSION.encode()}:
            assert 0 < await redis.ttl(name) <= 300, name


async def test_a_second_process_needs_no_sql(
    database_url: str, database: Database, redis: Redis, policies: Policies
) -> None:
    await policies.load()
    async with held(database_url) as other:
        other.go_on.set()
        assert (await Policies(other, redis).load()).version == await policies.version()
        assert other.reads == 0
        await policies.put(policy("p", allow()))
        assert (await Policies(other, redis).load()).decide(ANNA, JOIN).allowed
        assert other.reads == 1


async def test_a_policy_that_is_gone_leaves_nothing_in_the_cache(policies: Policies, redis: Redis) -> None:
    await policies.put(policy("p", allow()))
    await policies.load()
    await policies.remove("p")
    await policies.load()
    assert not await redis.exists("iam:policies:p")
    assert await redis.exists("iam:policies:roles")


async def test_what_was_read_before_a_change_is_not_cached_after_it(
    database_url: str, database: Database, redis: Redis, policies: Policies
) -> None:
    async with held(database_url) as slow:
        reading = asyncio.create_task(Policies(slow, redis).load())
        await slow.has_read.wait()
        await policies.put(policy("p", allow()))
        slow.go_on.set()
        assert not (await reading).decide(ANNA, JOIN).allowed
    assert (await policies.load()).decide(ANNA, JOIN).allowed


async def test_a_redis_that_was_lost_is_filled_again(policies: Policies, redis: Redis) -> None:
    watch = PolicyWatch(policies)
    await policies.put(policy("p", allow()))
    assert await allowed(watch)
    await redis.flushall()
    assert await allowed(watch)
    assert await redis.exists("iam:policies:p")


async def test_a_policy_that_cannot_be_is_not_written(policies: Policies, database: Database) -> None:
    version = await policies.version()
    for bad in (allow("a*"), allow(condition="user.rolle == 1"), allow(condition="user.id")):
        with pytest.raises(PolicyFault):
            await policies.put(policy("p", bad))
    assert await policies.version() == version
    query = select(policies_table.c.policy_id)
    ids: Any = await database.read(lambda connection: connection.scalars(query))
    assert "p" not in set(ids)


async def test_all_policies_together_are_bounded(policies: Policies) -> None:
    for number in range((MOST_RULES_IN_ALL - 10) // MOST_RULES):
        await policies.put(policy(f"p{number}", *[allow()] * MOST_RULES))
    with pytest.raises(PolicyFault, match="may have 500 rules"):
        await policies.put(policy("more", *[allow()] * MOST_RULES))
    await policies.put(policy("p0", *[allow()] * MOST_RULES))  # in place of itself
    await policies.put(policy("p1", *[allow(condition=f"true //{'x' * 900}")] * MOST_RULES))
    with pytest.raises(PolicyFault, match="65,536 characters"):
        await policies.put(policy("p2", *[allow(condition=f"true //{'x' * 900}")] * MOST_RULES))


async def test_rules_that_somebody_broke_by_hand_deny_and_say_so(
    policies: Policies, database: Database
) -> None:
    await policies.put(policy("all", allow()))
    broken = update(policies_table).where(policies_table.c.policy_id == "roles").values(rules="[{")
    await database.transaction(lambda connection: connection.execute(broken))
    decision = (await policies.load()).decide(ANNA, JOIN)
    assert (decision.allowed, decision.policy_matched) == (False, "roles")


async def test_with_sql_away_the_policies_of_before_hold(own_mariadb: MariaServer, valkey_url: str) -> None:
    url = own_mariadb.create_database("lobbyd")
    await migrate(url)
    database = Database(url)
    async with connect(valkey_url) as redis:
        policies = Policies(database, redis)
        watch = PolicyWatch(policies)
        before = await watch.recent()
        own_mariadb.stop()
        await redis.flushall()  # so that SQL would be needed
        await asyncio.sleep(0.6)
        assert await watch.recent() is before
        with pytest.raises(StoreAway):
            await watch.current()
        with pytest.raises(StoreAway):
            await PolicyWatch(policies).recent()
    await database.close()


# The catalogue of groups.


async def test_a_groups_permissions_are_seen_at_once(
    database: Database, redis: Redis, policies: Policies
) -> None:
    watch, catalogue = PolicyWatch(policies), GroupCatalogue(database, redis)
    assert (await watch.current()).facts("a", "NORMAL", {"Clan"}).permissions == []
    await catalogue.put(Definition("Clan", "클랜", "", ["queue_priority"]))
    assert (await watch.current()).facts("a", "NORMAL", {"Clan"}).permissions == ["queue_priority"]
    await catalogue.put(Definition("Clan", "클랜", "", ["other"]))
    assert (await watch.current()).facts("a", "NORMAL", {"Clan"}).permissions == ["other"]
    assert (await catalogue.get("Clan")).group_name == "클랜"
    await catalogue.remove("Clan")
    assert (await watch.current()).facts("a", "NORMAL", {"Clan"}).permissions == []
    with pytest.raises(GroupNotFound):
        await catalogue.get("Clan")
    with pytest.raises(GroupNotFound):
        await catalogue.remove("Clan")


async def test_members_are_counted_as_they_come_and_go(database: Database, redis: Redis) -> None:
    await register(database, "anna", "ben")
    groups, catalogue = Groups(database, redis), GroupCatalogue(database, redis)
    assert await catalogue.member_counts(["VIP_Users", "Premium_Users"]) == {
        "VIP_Users": 0,
        "Premium_Users": 0,
    }
    await groups.add("VIP_Users", "anna")
    await groups.add("VIP_Users", "ben")
    assert (await catalogue.member_counts(["VIP_Users"])) == {"VIP_Users": 2}
    assert await redis.hget("iam:groups:VIP_Users", "memberCount") == b"2"
    await groups.remove("VIP_Users", "anna")
    assert (await catalogue.member_counts(["VIP_Users"])) == {"VIP_Users": 1}
    assert await catalogue.members("VIP_Users", 10) == ["ben"]


async def test_a_count_that_was_read_before_a_change_is_not_cached_after_it(
    database_url: str, database: Database, redis: Redis
) -> None:
    await register(database, "anna")
    groups, catalogue = Groups(database, redis), GroupCatalogue(database, redis)
    async with held(database_url) as slow:
        counting = asyncio.create_task(GroupCatalogue(slow, redis).member_counts(["VIP_Users"]))
        await slow.has_read.wait()
        await groups.add("VIP_Users", "anna")
        slow.go_on.set()
        assert await counting == {"VIP_Users": 0}
    assert await catalogue.member_counts(["VIP_Users"]) == {"VIP_Users": 1}


async def test_who_belonged_to_a_group_that_is_gone_does_no_more(database: Database, redis: Redis) -> None:
    await register(database, "anna")
    groups, catalogue = Groups(database, redis), GroupCatalogue(database, redis)
    await groups.add("VIP_Users", "anna")
    assert await groups.of("anna") == {"VIP_Users"}
    assert await catalogue.remove("VIP_Users") == 1
    assert await groups.of("anna") == frozenset()


@pytest.mark.parametrize(
    ("group", "why"),
    [
        (Definition("a:b", "A", "", []), "group's id"),
        (Definition("{a}", "A", "", []), "group's id"),
        (Definition("a", "A\n|", "", []), "name has at most"),
        (Definition("a", "A", "x" * 300, []), "description has at most"),
        (Definition("a", "A", "", ["a,b"]), "a permission is"),
        (Definition("a", "A", "", ["p" * 60] * 40), "2048 characters"),
    ],
)
async def test_a_group_that_cannot_be_is_refused(
    database: Database, redis: Redis, group: Definition, why: str
) -> None:
    with pytest.raises(GroupFault, match=why):
        await GroupCatalogue(database, redis).put(group)
