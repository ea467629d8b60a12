"""`lobbyctl policy list | show | test`: which policies there are, and what follows from them for a user."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from protocol.errors import RequestError
from protocol.messages.conversion import convert
from protocol.messages.iam import CheckPermission
from runtime.config import ConfigError
from runtime.daemon import EXIT_ERROR
from scripts.commands.system import Stores, with_stores
from storage.groups import Groups
from storage.permissions import Explanation, Permissions, stored_role
from storage.policies import Policies, Policy, PolicyWatch, Question
from storage.users import fold


async def show(data_dir: Path, config_file: Path | None, policy_id: str | None, *, as_json: bool) -> int:
    """Print all policies, or the one of this id. Answers the exit code."""

    async def work(stores: Stores) -> int | None:
        rulebook = await Policies(stores.database, stores.redis).load()
        found = [policy for policy in rulebook.policies if policy_id in {None, policy.policy_id}]
        if policy_id is not None and not found:
            print(f"There is no policy `{policy_id}`: `lobbyctl policy list`.", file=sys.stderr)
            return EXIT_ERROR
        if as_json:
            shown: Any = msgspec.to_builtins(found if policy_id is None else found[0])
            print(
                json.dumps({"policies": shown} if policy_id is None else shown, ensure_ascii=False, indent=2)
            )
        else:
            print(*map(_in_words, found), sep="\n\n")
        return None

    return await with_stores(data_dir, config_file, work)


async def try_out(
    data_dir: Path,
    config_file: Path | None,
    username: str,
    action: str,
    resource: str,
    context: str,
    *,
    as_json: bool,
) -> int:
    """Print what would be decided. Answers the exit code. Raises ConfigError for what cannot be asked."""
    question = _question(action, resource, context)
    user_id = fold(username)

    async def work(stores: Stores) -> None:
        watch = PolicyWatch(Policies(stores.database, stores.redis))
        role_of = partial(stored_role, stores.database)
        groups = Groups(stores.database, stores.redis)
        found = await Permissions(stores.redis, watch, groups, role_of).explain(user_id, question)
        print(json.dumps(_explained(found), ensure_ascii=False) if as_json else _explanation(user_id, found))

    return await with_stores(data_dir, config_file, work)


def _question(action: str, resource: str, context: str) -> Question:
    try:
        said = {"action": action, "resource": resource, "context": json.loads(context)}
        asked = convert(said, CheckPermission)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--context: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RequestError as error:
        raise ConfigError(error.message) from None
    return Question(asked.action, asked.resource, asked.context or {})


def _in_words(policy: Policy) -> str:
    lines = [f"{policy.policy_id}: {policy.policy_name}"]
    if policy.description:
        lines.append(f"  {policy.description}")
    for number, rule in enumerate(policy.rules, start=1):
        where = "" if rule.condition is None else f" if {rule.condition}"
        lines.append(f"  {number}. {rule.effect} {rule.action} on {rule.resource}{where}")
    return "\n".join(lines)


def _explained(found: Explanation) -> dict[str, Any]:
    decision, facts = found.decision, found.facts
    return {
        "allowed": decision.allowed,
        "reason": decision.reason,
        "policyMatched": decision.policy_matched,
        "user": None
        if facts is None
        else {
            "id": facts.user_id,
            "role": facts.role,
            "roles": list(facts.roles),
            "groups": list(facts.groups),
            "permissions": list(facts.permissions),
        },
    }


def _explanation(user_id: str, found: Explanation) -> str:
    lines = [f"{'ALLOWED' if found.decision.allowed else 'DENIED'}: {found.decision.reason}"]
    facts = found.facts
    if facts is not None:
        roles, groups, permissions = (
            ", ".join(names) or "none" for names in (facts.roles, facts.groups, facts.permissions)
        )
        lines.append(
            f"{user_id} has role {facts.role}; bears: {roles}; groups: {groups}; permissions: {permissions}."
        )
    lines.append("Nothing was decided: this is neither kept nor written to the audit log.")
    return "\n".join(lines)
