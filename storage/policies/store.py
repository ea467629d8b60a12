"""The noun "policy": SQL is the truth, and every process decides by a rulebook that it made of it."""

import asyncio

import msgspec
import structlog
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import StoreAway
from storage.policies.cache import CACHE_LIFE_S, PolicyCache, Records, permission_names
from storage.policies.policy import (
    MOST_CONDITION_CHARACTERS_IN_ALL,
    MOST_RULES_IN_ALL,
    Policy,
    PolicyFault,
    Rule,
    check,
    rules_from_json,
    rules_to_json,
)
from storage.policies.rulebook import GroupRecord, Rulebook
from storage.servers import now_ms
from storage.tables import groups as groups_table, policies
from storage.wire import Executor

LOOK_S = 0.5
"""How old the knowledge that nothing has changed may be where a decision must not cost a round trip."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


class PolicyNotFound(Exception):
    """There is no policy of this id."""


class Policies:
    """The policies of one system. Every method raises StoreAway when a store that it needs is away.

    A change that returns is seen at once by all who ask. One that met a StoreAway may have been made while
    the cache still knows nothing of it: repeat it, which does no harm.
    """

    def __init__(self, database: Database, redis: Executor) -> None:
        self._database = database
        self._cache = PolicyCache(redis)

    async def put(self, policy: Policy) -> None:
        """Have this policy, in place of the one of its id if there is one. Raises PolicyFault."""
        check(policy)
        await self._database.transaction(lambda connection: _put(connection, policy))
        await self._cache.changed()

    async def remove(self, policy_id: str) -> None:
        """Have no policy of this id. Raises PolicyNotFound."""

        async def work(connection: AsyncConnection) -> None:
            done = await connection.execute(delete(policies).where(policies.c.policy_id == policy_id))
            if not done.rowcount:
                raise PolicyNotFound(policy_id)

        await self._database.transaction(work)
        await self._cache.changed()

    async def version(self) -> str:
        """The version of now: another one after every change of a policy or a group."""
        return await self._cache.version()

    async def load(self) -> Rulebook:
        """All policies of now, from Redis or else from SQL, which then fills the cache."""
        version, records = await self._cache.read()
        if records is None:
            records = await self._database.read(_read)
            await self._cache.fill(version, records)
        groups = {
            group_id: GroupRecord(name, description, permission_names(permissions))
            for group_id, name, description, permissions in records.groups
        }
        return Rulebook(version, [_stored(*record) for record in records.policies], groups)


class PolicyWatch:
    """The rulebook of a process: made anew when something has changed, and every CACHE_LIFE_S."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._rulebook: Rulebook | None = None
        self._loaded_s = self._looked_s = 0.0
        self._loading = asyncio.Lock()

    async def current(self) -> Rulebook:
        """The rulebook of this moment, at the cost of a round trip. Raises StoreAway."""
        return await self.at(await self._policies.version())

    async def at(self, version: str) -> Rulebook:
        """The rulebook of this version, or of a newer one. Raises StoreAway."""
        async with self._loading:
            now_s = asyncio.get_running_loop().time()
            is_old = now_s > self._loaded_s + CACHE_LIFE_S
            if self._rulebook is None or self._rulebook.version != version or is_old:
                self._rulebook = await self._policies.load()
                self._loaded_s = now_s
            return self._rulebook

    async def recent(self) -> Rulebook:
        """The rulebook of LOOK_S ago or newer, seldom at the cost of a round trip. Raises StoreAway.

        While SQL is away it may be older: then nobody changes policies.
        """
        clock = asyncio.get_running_loop().time
        if self._rulebook is not None and clock() < self._looked_s + LOOK_S:
            return self._rulebook
        known = self._rulebook
        self._looked_s = clock()  # one asks for all who come meanwhile
        version = await self._policies.version()
        try:
            rulebook = await self.at(version)
        except StoreAway as error:
            if known is None:
                raise
            log.warning("policies cannot be read: those of before hold", cause=str(error))
            rulebook = known
        return rulebook


async def _put(connection: AsyncConnection, policy: Policy) -> None:
    rows = {row.policy_id: row.rules for row in await connection.execute(select(policies).with_for_update())}
    others = [
        rule for policy_id, text in rows.items() if policy_id != policy.policy_id for rule in _rules(text)
    ]
    if len(others) + len(policy.rules) > MOST_RULES_IN_ALL:
        raise PolicyFault(f"all policies together may have {MOST_RULES_IN_ALL} rules")
    characters = sum(len(rule.condition or "") for rule in (*others, *policy.rules))
    if characters > MOST_CONDITION_CHARACTERS_IN_ALL:
        most = f"{MOST_CONDITION_CHARACTERS_IN_ALL:,}"
        raise PolicyFault(f"the conditions of all policies together may have {most} characters")
    values = {
        "policy_name": policy.policy_name,
        "description": policy.description,
        "rules": rules_to_json(policy.rules),
        "updated_at": now_ms(),
    }
    if policy.policy_id in rows:
        which = policies.c.policy_id == policy.policy_id
        await connection.execute(update(policies).where(which).values(values))
    else:
        await connection.execute(insert(policies).values(policy_id=policy.policy_id, **values))


async def _read(connection: AsyncConnection) -> Records:
    policy_rows = await connection.execute(
        select(
            policies.c.policy_id, policies.c.policy_name, policies.c.description, policies.c.rules
        ).order_by(policies.c.policy_id)
    )
    group_rows = await connection.execute(
        select(
            groups_table.c.group_id,
            groups_table.c.group_name,
            groups_table.c.description,
            groups_table.c.permissions,
        ).order_by(groups_table.c.group_id)
    )
    return Records([tuple(row) for row in policy_rows], [tuple(row) for row in group_rows])


def _stored(policy_id: str, name: str, description: str, rules: str) -> Policy:
    return Policy(policy_id=policy_id, policy_name=name, description=description, rules=_rules(rules))


def _rules(text: str) -> tuple[Rule, ...]:
    """Stored rules; those that somebody broke by hand are one that matches everything and always fails."""
    try:
        return rules_from_json(text)
    except msgspec.DecodeError:
        return (Rule(action="*", resource="*", condition="its rules cannot be read"),)
