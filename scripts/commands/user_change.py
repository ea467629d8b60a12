"""`lobbyctl user disable | enable | kick | role`: say whether and as what somebody may come in.

Each command can be given again after it was cut off, and then does what was left undone.
"""

import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from protocol.envelope import Address, Delivery
from protocol.kicking import kick
from protocol.messages.declaration import TRUSTED
from runtime.daemon import EXIT_ERROR
from scripts.commands.operators import operator
from scripts.commands.system import Stores, sending, with_stores
from storage.accounts import AccountNotFound, Accounts
from storage.audit import ALLOWED, Audit, Entry
from storage.queues import Outbox, UnknownQueue
from storage.sessions import Expelled, Sessions
from storage.users import AccountStatus, fold

TICKET_KEPT_S = 900.0
"""How long a cancelled ticket can still be looked at."""


class Desk:
    """What one operator says about one user, done."""

    def __init__(self, stores: Stores, outbox: Outbox, user_id: str) -> None:
        self.user_id = user_id
        self.accounts = Accounts(stores.database, stores.redis)
        self.sessions = Sessions(stores.redis, refresh_ttl_s=0, ticket_keep_s=TICKET_KEPT_S)
        self._outbox = outbox
        self._audit = Audit(stores.redis)

    async def expel(self) -> Expelled:
        """End the user's stay, and close the connections that it had."""
        expelled = await self.sessions.expel(self.user_id)
        await self.send(kick(expelled.signed_in, self.user_id, "ADMIN"))
        await self.send(kick(expelled.waiting, None, "ADMIN"))
        return expelled

    async def send(self, deliveries: Iterable[tuple[Address, Delivery]]) -> None:
        """Send something to connections."""
        for address, delivery in deliveries:
            # A node that is gone took the connection with it.
            with contextlib.suppress(UnknownQueue):
                await self._outbox.delivered(address.server_id, delivery)

    async def note(self, action: str, reason: str) -> None:
        """Write down who did it."""
        entry = Entry(operator(), f"user:{action}", f"user:{self.user_id}", ALLOWED, "lobbyctl", reason)
        await self._audit.append([entry])


async def disable(data_dir: Path, config_file: Path | None, username: str, *, as_json: bool) -> int:
    """Keep somebody out. Answers the exit code."""

    async def work(desk: Desk) -> None:
        before = await desk.accounts.set_status(desk.user_id, AccountStatus.DISABLED)
        expelled = await desk.expel()
        await desk.note("disable", f"{before.status}->{AccountStatus.DISABLED}")
        is_changed = before.status is not AccountStatus.DISABLED
        said = "is disabled" if is_changed else "was disabled already"
        _print(desk, is_changed, before.status, AccountStatus.DISABLED, expelled, f"{said}.", as_json=as_json)

    return await _at_desk(data_dir, config_file, username, work)


async def enable(data_dir: Path, config_file: Path | None, username: str, *, as_json: bool) -> int:
    """Let somebody in again. Answers the exit code."""

    async def work(desk: Desk) -> None:
        before = await desk.accounts.set_status(desk.user_id, AccountStatus.ACTIVE)
        is_changed = before.status is not AccountStatus.ACTIVE
        if is_changed:
            await desk.note("enable", f"{before.status}->{AccountStatus.ACTIVE}")
        said = "may come in again." if is_changed else "is not disabled."
        _print(desk, is_changed, before.status, AccountStatus.ACTIVE, None, said, as_json=as_json)

    return await _at_desk(data_dir, config_file, username, work)


async def kick_out(data_dir: Path, config_file: Path | None, username: str, *, as_json: bool) -> int:
    """End somebody's stay. Answers the exit code."""

    async def work(desk: Desk) -> None:
        status = (await desk.accounts.find(desk.user_id)).status
        expelled = await desk.expel()
        await desk.note("kick", _ended(expelled))
        is_changed = expelled != Expelled(None, None, 0)
        said = "is kicked out." if is_changed else "was not there."
        _print(desk, is_changed, status, status, expelled, said, as_json=as_json)

    return await _at_desk(data_dir, config_file, username, work)


async def appoint(
    data_dir: Path, config_file: Path | None, username: str, role: str, *, as_json: bool
) -> int:
    """Give somebody a role. Answers the exit code."""

    async def work(desk: Desk) -> None:
        before = (await desk.accounts.set_role(desk.user_id, role)).role
        # Nothing that was begun with a role of trust may end without it.
        expelled = await desk.expel() if before in TRUSTED and before != role else None
        if before != role:
            await desk.note("role", f"{before}->{role}")
        said = (
            f"is {role} now, was {before}; tokens tell it from the next one on."
            if before != role
            else f"is {role} already."
        )
        _print(desk, before != role, before, role, expelled, said, as_json=as_json)

    return await _at_desk(data_dir, config_file, username, work)


async def _at_desk(
    data_dir: Path, config_file: Path | None, username: str, work: Callable[[Desk], Awaitable[None]]
) -> int:
    async def with_desk(stores: Stores) -> int | None:
        async with sending(stores.wire) as outbox:
            try:
                await work(Desk(stores, outbox, fold(username)))
            except AccountNotFound as error:
                print(f"There is no user {error}.", file=sys.stderr)
                return EXIT_ERROR
        return None

    return await with_stores(data_dir, config_file, with_desk)


def _ended(expelled: Expelled) -> str:
    """What a stay consisted of, in words."""
    parts = [f"logged in on {expelled.families} device{'' if expelled.families == 1 else 's'}"]
    if expelled.signed_in is not None:
        parts.append(f"signed in at {expelled.signed_in.server_id}")
    if expelled.waiting is not None:
        parts.append(f"waiting at {expelled.waiting.server_id}")
    return ", ".join(parts)


def _print(
    desk: Desk,
    is_changed: bool,
    before: str,
    after: str,
    expelled: Expelled | None,
    said: str,
    *,
    as_json: bool,
) -> None:
    if not as_json:
        was = f" Was {_ended(expelled)}." if expelled is not None else ""
        print(f"{desk.user_id} {said}{was}")
        return
    found = {"userId": desk.user_id, "changed": is_changed, "before": before, "after": after}
    if expelled is not None:
        found |= {
            "devices": expelled.families,
            "signedInAt": expelled.signed_in and expelled.signed_in.server_id,
            "waitedAt": expelled.waiting and expelled.waiting.server_id,
        }
    print(json.dumps(found, ensure_ascii=False))
