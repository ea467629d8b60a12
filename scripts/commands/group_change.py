"""`lobbyctl group put | delete | add | remove`: change groups and who belongs to them."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from runtime.config import ConfigError
from runtime.daemon import EXIT_ERROR
from scripts.commands.operators import operator
from scripts.commands.system import Stores, with_stores
from storage.audit import ALLOWED, Audit, Entry
from storage.group_catalogue import Definition, GroupCatalogue, GroupFault
from storage.groups import GroupNotFound, Groups, UserNotFound
from storage.users import fold

Change = Callable[[Stores], Awaitable[str]]
"""Does it and answers what was done, in words. Raises GroupNotFound, UserNotFound or GroupFault."""


async def put(
    data_dir: Path,
    config_file: Path | None,
    group_id: str,
    given: tuple[str | None, str | None, str | None],
    *,
    as_json: bool,
) -> int:
    """Make or change a group. `given` are name, description and permissions. Answers the exit code."""

    async def change(stores: Stores) -> str:
        catalogue = GroupCatalogue(stores.database, stores.redis)
        await catalogue.put(await _definition(catalogue, group_id, given))
        await _write_down(stores, "group:put", [f"group:{group_id}"])
        return f"{group_id} is so from now on."

    return await _do(data_dir, config_file, group_id, change, as_json=as_json)


async def delete(data_dir: Path, config_file: Path | None, group_id: str, *, as_json: bool) -> int:
    """Have a group no more. Answers the exit code."""

    async def change(stores: Stores) -> str:
        count = await GroupCatalogue(stores.database, stores.redis).remove(group_id)
        await _write_down(stores, "group:delete", [f"group:{group_id}"])
        return f"{group_id} is no more; {count:,} belonged to it."

    return await _do(data_dir, config_file, group_id, change, as_json=as_json)


async def add(
    data_dir: Path, config_file: Path | None, group_id: str, users: Sequence[str], *, as_json: bool
) -> int:
    """Have users belong to a group. Answers the exit code."""
    user_ids = [fold(user) for user in users]

    async def change(stores: Stores) -> str:
        await Groups(stores.database, stores.redis).add_many(group_id, user_ids)
        await _write_down(stores, "group:add", [f"group:{group_id}:{user_id}" for user_id in user_ids])
        return f"{', '.join(user_ids)} belong to {group_id}."

    return await _do(data_dir, config_file, group_id, change, as_json=as_json)


async def remove(
    data_dir: Path, config_file: Path | None, group_id: str, users: Sequence[str], *, as_json: bool
) -> int:
    """Have users belong to a group no more. Answers the exit code."""
    user_ids = [fold(user) for user in users]

    async def change(stores: Stores) -> str:
        groups = Groups(stores.database, stores.redis)
        for user_id in user_ids:
            await groups.remove(group_id, user_id)
            await _write_down(stores, "group:remove", [f"group:{group_id}:{user_id}"])
        return f"{', '.join(user_ids)} do not belong to {group_id}."

    return await _do(data_dir, config_file, group_id, change, as_json=as_json)


async def _do(
    data_dir: Path, config_file: Path | None, group_id: str, change: Change, *, as_json: bool
) -> int:
    async def work(stores: Stores) -> int | None:
        try:
            said = await change(stores)
        except GroupNotFound:
            print(f"There is no group `{group_id}`: `lobbyctl group list`.", file=sys.stderr)
            return EXIT_ERROR
        except UserNotFound as error:
            print(f"There is no account `{error}`.", file=sys.stderr)
            return EXIT_ERROR
        except GroupFault as fault:
            raise ConfigError(str(fault)) from None
        print(json.dumps({"groupId": group_id}) if as_json else said)
        return None

    return await with_stores(data_dir, config_file, work)


async def _definition(
    catalogue: GroupCatalogue, group_id: str, given: tuple[str | None, str | None, str | None]
) -> Definition:
    name, description, joined = given
    permissions = None if joined is None else [each.strip() for each in joined.split(",") if each.strip()]
    try:
        was = await catalogue.get(group_id)
    except GroupNotFound:
        return Definition(group_id, name or group_id, description or "", permissions or [])
    return Definition(
        group_id,
        was.group_name if name is None else name,
        was.description if description is None else description,
        was.permissions if permissions is None else permissions,
    )


async def _write_down(stores: Stores, action: str, resources: Sequence[str]) -> None:
    entries = [Entry(operator(), action, resource, ALLOWED, "lobbyctl") for resource in resources]
    await Audit(stores.redis).append(entries)
