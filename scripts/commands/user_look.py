"""`lobbyctl user show`: an account, and where its user is now."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.daemon import EXIT_ERROR
from scripts.commands.system import Stores, with_stores
from storage.accounts import AccountNotFound, Accounts
from storage.admission import AdmissionSettings
from storage.groups import Groups
from storage.logins import Logins
from storage.sessions import Sessions
from storage.users import fold


async def show(data_dir: Path, config_file: Path | None, username: str, *, as_json: bool) -> int:
    """Print what is known of a user. Answers the exit code."""

    async def work(stores: Stores) -> int | None:
        try:
            found = await _found(stores, fold(username))
        except AccountNotFound as error:
            print(f"There is no user {error}.", file=sys.stderr)
            return EXIT_ERROR
        print(json.dumps(found, ensure_ascii=False) if as_json else _in_words(found))
        return None

    return await with_stores(data_dir, config_file, work)


async def is_known(stores: Stores, user_id: str) -> bool:
    """Whether there is such an account; says on stderr when there is none. Raises StoreAway."""
    try:
        await Accounts(stores.database, stores.redis).find(user_id)
    except AccountNotFound as error:
        print(f"There is no user {error}.", file=sys.stderr)
        return False
    return True


async def _found(stores: Stores, user_id: str) -> dict[str, Any]:
    account = await Accounts(stores.database, stores.redis).find(user_id)
    session = await Sessions(stores.redis, refresh_ttl_s=0, ticket_keep_s=0).facts(user_id)
    ticket = await AdmissionSettings(stores.redis).standing(user_id)
    created = datetime.fromtimestamp(account.created_at / 1000, UTC)
    return {
        "userId": account.user_id,
        "nickname": account.nickname,
        "status": account.status.value,
        "role": account.role,
        "groups": sorted(await Groups(stores.database, stores.redis).of(user_id)),
        "createdAt": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "signedInAt": session.node,
        "ticket": None if ticket is None else ticket.status.value,
        "devices": session.devices,
        "lastLogin": session.last_login,
        "loginCount": session.login_count,
        "riskScore": session.risk_score,
        "failedLogins": await Logins(stores.redis, 0, 0).failures(user_id),
    }


def _in_words(found: dict[str, Any]) -> str:
    groups = ", ".join(found["groups"]) or "none"
    where = "nowhere" if found["signedInAt"] is None else f"at {found['signedInAt']}"
    ticket = "no ticket" if found["ticket"] is None else f"a ticket that is {found['ticket']}"
    nickname = "".join(letter if letter.isprintable() else "?" for letter in found["nickname"])
    lines = [
        f"{found['userId']} ({nickname}) is {found['status']}, role {found['role']}, "
        f"since {found['createdAt']}.",
        f"Groups: {groups}.",
        f"Signed in {where}; {ticket}; {_counted(found['devices'], 'device')} logged in.",
    ]
    if found["lastLogin"] is not None:
        risk = "" if found["riskScore"] is None else f", risk {found['riskScore']:g}"
        lines.append(
            f"Last login {found['lastLogin']}{risk}; {_counted(found['loginCount'], 'login')} in all."
        )
    if found["failedLogins"]:
        lines.append(f"{_counted(found['failedLogins'], 'failed login')} within an hour.")
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
