"""`lobbyctl group list | show`: which groups there are, and who belongs to them."""

import json
import sys
from pathlib import Path
from typing import Any

from runtime.daemon import EXIT_ERROR
from scripts.commands.system import Stores, with_stores
from storage.group_catalogue import GroupCatalogue
from storage.groups import Group, GroupNotFound, Groups

MOST_MEMBERS_SHOWN = 100


async def list_all(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print all groups. Answers the exit code."""

    async def work(stores: Stores) -> None:
        groups = await Groups(stores.database, stores.redis).all()
        counts = await _counts(stores, groups)
        if as_json:
            print(json.dumps({"groups": [_shown(group, counts) for group in groups]}, ensure_ascii=False))
        else:
            print(*(_in_words(group, counts) for group in groups), sep="\n")

    return await with_stores(data_dir, config_file, work)


async def show(data_dir: Path, config_file: Path | None, group_id: str, *, as_json: bool) -> int:
    """Print one group and its first members. Answers the exit code."""

    async def work(stores: Stores) -> int | None:
        catalogue = GroupCatalogue(stores.database, stores.redis)
        try:
            group = await catalogue.get(group_id)
        except GroupNotFound:
            print(f"There is no group `{group_id}`: `lobbyctl group list`.", file=sys.stderr)
            return EXIT_ERROR
        members = await catalogue.members(group_id, MOST_MEMBERS_SHOWN)
        counts = await _counts(stores, [group])
        if as_json:
            print(json.dumps({**_shown(group, counts), "members": members}, ensure_ascii=False))
        else:
            print(_in_words(group, counts), *members, sep="\n")
        return None

    return await with_stores(data_dir, config_file, work)


async def _counts(stores: Stores, groups: list[Group]) -> dict[str, int]:
    catalogue = GroupCatalogue(stores.database, stores.redis)
    return await catalogue.member_counts(group.group_id for group in groups)


def _shown(group: Group, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "groupId": group.group_id,
        "groupName": group.group_name,
        "description": group.description,
        "memberCount": counts[group.group_id],
        "permissions": list(group.permissions),
    }


def _in_words(group: Group, counts: dict[str, int]) -> str:
    permits = ", ".join(group.permissions) or "nothing"
    count = counts[group.group_id]
    members = f"{count:,} member{'' if count == 1 else 's'}"
    return f"{group.group_id}: {group.group_name}, {members}, permits {permits}"
