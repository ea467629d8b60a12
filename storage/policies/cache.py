"""Policies and groups as Redis has them, and the version that tells when they have changed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.wire import Argument, Executor

LIBRARY = Library("audit", "policies")

CACHE_LIFE_S = 300
"""How long a change that was made by hand in SQL may take to be noticed by who reads the cache."""


DEFAULTS_REVISION = "0009"
"""The newest migration that brings policies or groups: what was cached before it is not read after it."""


@dataclass(frozen=True, slots=True)
class Records:
    """What is in SQL: of each policy and each group its id and three texts, as their hashes have them."""

    policies: Sequence[tuple[str, str, str, str]]
    groups: Sequence[tuple[str, str, str, str]]


class PolicyCache:
    """The cached policies and groups of one system. Every method raises StoreAway."""

    def __init__(self, redis: Executor) -> None:
        self._redis = redis

    async def version(self) -> str:
        """The version of now: another one after every change."""
        version: bytes = await self._call("policies_version", [keys.POLICY_VERSION])
        return version.decode()

    async def changed(self) -> None:
        """A policy or a group was changed, and that is committed: what is cached is not good any more."""
        await self._call("policies_changed", [keys.POLICY_VERSION])

    async def read(self) -> tuple[str, Records | None]:
        """The version, and what is cached for it."""
        names = [keys.POLICY_VERSION, keys.POLICY_INDEX]
        answer = await self._call(
            "policies_read", names, keys.POLICY_PREFIX, keys.GROUP_PREFIX, DEFAULTS_REVISION
        )
        version = answer[0].decode()
        if len(answer) == 1:
            return version, None
        return version, Records(_texts(answer[1]), _texts(answer[2]))

    async def fill(self, version: str, records: Records) -> None:
        """Cache what SQL said after `version` was read, unless something was changed meanwhile."""
        names = [keys.POLICY_VERSION, keys.POLICY_INDEX]
        read = json.dumps({"policies": records.policies, "groups": records.groups})
        life_ms = CACHE_LIFE_S * 1000
        await self._call(
            "policies_fill", names, version, life_ms, keys.POLICY_PREFIX, keys.GROUP_PREFIX, read,
            DEFAULTS_REVISION,
        )  # fmt: skip

    async def member_count(self, group_id: str) -> tuple[int | None, str]:
        """How many belong to a group, None while that is not known, and how often that has changed."""
        with redis_away_is_store_away():
            count, changes = await self._redis.execute_command(
                "HMGET", keys.group(group_id), "memberCount", "changes"
            )
        return None if count is None else int(count), (changes or b"").decode()

    async def counted(self, group_id: str, changes: str, count: int) -> None:
        """Cache how many SQL said belong to a group, unless somebody came or went meanwhile."""
        await self._call("group_counted", [keys.group(group_id)], changes, count)

    async def joined(self, group_id: str) -> None:
        """Somebody came or went, and that is committed."""
        await self._call("group_joined", [keys.group(group_id)], CACHE_LIFE_S * 1000)

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


def _texts(rows: Sequence[Sequence[bytes]]) -> list[tuple[str, str, str, str]]:
    decoded = ([text.decode() for text in row] for row in rows)
    return [(first, second, third, fourth) for first, second, third, fourth in decoded]


def permission_names(joined: str) -> tuple[str, ...]:
    """The names in a group's field of permissions."""
    return tuple(filter(None, joined.split(",")))
