"""What players may do, asked over the wire of a town of two nodes and two login workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import update

from protocol.messages.iam import CheckPermission, Groups, ListGroups, ListPolicies, Permission, Policies
from storage import keys
from storage.audit import Search, search
from storage.connections import connect
from storage.database import Database
from storage.groups import Groups as Memberships
from storage.policies import Policies as Store
from storage.tables import users
from tests.storage.policies.making import DEFAULTS, allow, deny, policy
from tests.system.cluster import Cluster
from tests.system.guest import HEARING_S, Guest

pytestmark = pytest.mark.servers


class Office:
    """The stores of a running cluster, as an operator's command has them."""

    def __init__(self, database: Database, redis: Any) -> None:
        self.database = database
        self.redis = redis
        self.policies = Store(database, redis)
        self.groups = Memberships(database, redis)

    async def give_role(self, user_id: str, role: str) -> None:
        change = update(users).where(users.c.user_id == user_id).values(role=role)
        await self.database.transaction(lambda connection: connection.execute(change))
        await self.redis.delete(keys.user(user_id))

    async def audited(self, **wanted: Any) -> list[str]:
        """Rows that are in SQL, once the last that was written has come there."""
        while await self.redis.xlen(keys.AUDIT_PENDING):
            await asyncio.sleep(0.05)
        rows = await search(self.database, Search(**wanted), 100)
        return [f"{row.action}|{row.resource}|{row.result}|{row.policy}" for row in rows]


@asynccontextmanager
async def office(town: Cluster) -> AsyncIterator[Office]:
    database = Database(str(town.settings["database.url"]))
    async with connect(str(town.settings["redis.url"])) as redis:
        yield Office(database, redis)
    await database.close()


async def may(guest: Guest, action: str, resource: str, **context: Any) -> Permission:
    asked = CheckPermission(action=action, resource=resource, context=context or None)
    return cast(Permission, await guest.ask(asked))


async def test_the_answer_says_why_and_is_written_down(town: Cluster) -> None:
    guest = await Guest.at(town["SOCK001"].endpoint)
    await guest.sign_up("perm-anna")
    async with office(town) as desk:
        rule = allow("arena:join", "arena:*", 'user.role == "VIP" || context.level > 9')
        await desk.policies.put(policy("arena", rule))
        no = await may(guest, "arena:join", "arena:1")
        assert not no.allowed
        assert "failed" in no.reason
        assert no.policy_matched == "arena"
        yes = await may(guest, "arena:join", "arena:1", level=10)
        assert (yes.allowed, yes.policy_matched) == (True, "arena")
        assert yes.reason == 'Allowed by rule 1 of policy "arena".'
        nothing = await may(guest, "nothing:at", "all")
        assert (nothing.allowed, nothing.policy_matched) == (False, None)
        await desk.policies.remove("arena")
        assert await desk.audited(who="perm-anna", action="arena:*") == [
            "arena:join|arena:1|DENIED|arena",
            "arena:join|arena:1|ALLOWED|arena",
        ]
    guest.leave()


async def test_a_change_counts_at_once_at_every_node_and_worker(town: Cluster) -> None:
    guests = [await Guest.at(node.endpoint) for node in town.nodes]
    await asyncio.gather(*(guest.sign_up(f"perm-many{number}") for number, guest in enumerate(guests)))
    async with office(town) as desk:
        for round_ in range(5):
            made = policy("switch", allow("switch:*") if round_ % 2 == 0 else deny("switch:*"))
            await desk.policies.put(made)
            asked = [may(guest, "switch:on", "x") for guest in guests for _ in range(10)]
            answers = await asyncio.gather(*asked)
            assert {answer.allowed for answer in answers} == {round_ % 2 == 0}
        await desk.policies.remove("switch")
    for guest in guests:
        guest.leave()


async def test_groups_and_policies_can_be_asked_for(town: Cluster) -> None:
    guest = await Guest.at(town["SOCK001"].endpoint)
    await guest.sign_up("perm-gina")
    assert cast(Groups, await guest.ask(ListGroups())).groups == []
    async with office(town) as desk:
        await desk.groups.add("Premium_Users", "perm-gina")
        (group,) = cast(Groups, await guest.ask(ListGroups())).groups
        assert (group.group_id, group.group_name) == ("Premium_Users", "Premium Users")
        assert (group.member_count, group.permissions) == (1, ["queue_priority"])
        found = cast(Policies, await guest.ask(ListPolicies())).policies
        assert {made.policy_id for made in DEFAULTS} <= {shown.policy_id for shown in found}
        assert next(shown for shown in found if shown.policy_id == "roles").rules[0].effect == "allow"
        await desk.policies.put(policy("secret", deny("iam:read", "iam:policies")))
        refusal = await guest.refused(ListPolicies(), "FORBIDDEN")
        assert 'policy "secret"' in str(refusal)
        await desk.policies.remove("secret")
        await guest.ask(ListPolicies())
    guest.leave()


async def test_a_role_is_borne_by_policy(town: Cluster) -> None:
    guest = await Guest.at(town["SOCK001"].endpoint)
    await guest.register("perm-serv")
    async with office(town) as desk:
        await desk.give_role("perm-serv", "GAME_SERVER")
        tokens = await guest.sign_in("perm-serv")
        assert (await guest.resume(tokens.access_token)).roles == ["GAME_SERVER"]
        assert "role:bear|role:GAME_SERVER|ALLOWED|roles" in await desk.audited(who="perm-serv")
        await desk.policies.put(policy("closed", deny("role:bear", "role:GAME_SERVER")))
        async with asyncio.timeout(HEARING_S):  # what sign-ins go by may be half a second old
            while (await guest.resume(tokens.access_token)).roles:
                await asyncio.sleep(0.05)
        await desk.policies.remove("closed")
    guest.leave()


async def test_a_group_gives_roles_permissions_and_a_tier_if_policies_say_so(town: Cluster) -> None:
    guest = await Guest.at(town["SOCK002"].endpoint)
    await guest.register("perm-vera")
    async with office(town) as desk:
        await desk.groups.add("VIP_Users", "perm-vera")
        tokens = await guest.sign_in("perm-vera")
        resumed = await guest.resume(tokens.access_token)
        assert resumed.permissions == ["game_early_access", "queue_priority"]
        assert resumed.roles == ["NORMAL"]
        assert "queue:priority|queue:portal:VIP|ALLOWED|queue-priority" in await desk.audited(who="perm-vera")
    guest.leave()


async def test_hostile_names_forge_no_line_and_get_no_other_answer(town: Cluster) -> None:
    guest = await Guest.at(town["SOCK001"].endpoint)
    await guest.sign_up("perm-mal")
    async with office(town) as desk:
        await desk.policies.put(policy("one", allow("door:open", "door:1")))
        assert (await may(guest, "door:open", "door:1")).allowed
        hostile = [
            ("door", "open:door:1"), ("door:open:door", "1"), ("{door:open}", "door:1"),
            ("door:open", "{door:1}"), ("door:open", "door:1|ALLOWED|one"), ("door%3Aopen", "door:1"),
            ("door:open", "door:1\u2028x"),
        ]  # fmt: skip
        for action, resource in hostile:
            assert not (await may(guest, action, resource)).allowed, (action, resource)
            assert not (await may(guest, action, resource)).allowed, "from the cache"
        lines: Any = await desk.redis.lrange(keys.AUDIT_LOGS, 0, -1)
        mine = [line.decode() for line in lines if b"|perm-mal|" in line]
        assert len([line for line in mine if "|ALLOWED|one" in line]) == 1
        assert all(line.count("|") == 5 and line.isprintable() for line in mine)
        await desk.policies.remove("one")
    guest.leave()
