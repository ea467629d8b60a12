"""The noun "login": how many failed lately, and whether an account is known to log in from somewhere.

Addresses and devices are stored as keyed hashes only. Every change is one Function in `functions/logins.lua`.
"""

from dataclasses import dataclass
from typing import Any

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.wire import Argument, Executor

LIBRARY = Library("logins")

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

MOST_PLACES = 10
"""Addresses, and devices, of one account that are remembered."""

PLACES_LIFE_MS = 90 * DAY_MS

_ADDRESS, _DEVICE = "address:", "device:"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a login comes from, as keyed hashes.

    `address` is the same for all accounts, `place` is the address and `device` the device of one account;
    `device` is "" where the client named none.
    """

    address: str
    place: str
    device: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of a login before its password is looked at.

    `wait_ms` is how long it must wait for guesses from its address, 0 where it need not. `failures` are those
    of the account from anywhere in the last hour, forgotten in `calm_ms`. `is_fresh` says that all of this
    was seen within a day.
    """

    wait_ms: int
    failures: int
    calm_ms: int
    knows_place: bool
    knows_device: bool
    is_fresh: bool


class Logins:
    """Logins by any number of processes. Raises StoreAway.

    `most_from_place` failures a minute are let through on an account from one address, `most_from_address`
    on all accounts from one address.
    """

    def __init__(self, redis: Executor, most_from_place: int, most_from_address: int) -> None:
        self._redis = redis
        self._most = (most_from_place, most_from_address)

    async def look(self, user_id: str, origin: Origin) -> Outlook:
        """What is known, the same way whether there is such an account or not."""
        names = [*_counts(user_id, origin), keys.places(user_id)]
        wait_ms, failures, calm_ms, *unseen = await self._call(
            "login_look", names, *self._most, _ADDRESS + origin.place, _DEVICE + origin.device
        )
        place_ms, device_ms = unseen
        wanted = unseen if origin.device else [place_ms]
        return Outlook(
            wait_ms=wait_ms,
            failures=failures,
            calm_ms=calm_ms,
            knows_place=place_ms >= 0,
            knows_device=bool(origin.device) and device_ms >= 0,
            is_fresh=all(0 <= ms < DAY_MS for ms in wanted),
        )

    async def failures(self, user_id: str) -> int:
        """The failed logins of an account in the last hour, from anywhere."""
        with redis_away_is_store_away():
            name = keys.limit("failed-login-account", user_id)
            return int(await self._redis.execute_command("GET", name) or 0)

    async def fail(self, user_id: str, origin: Origin) -> int:
        """Count a failure. Answers 0, or the ms to wait when it was one too many.

        Of any number that are counted at once no more than the limit get 0.
        """
        names = _counts(user_id, origin)
        wait_ms: int = await self._call("login_fail", names, *self._most, MINUTE_MS, MINUTE_MS, HOUR_MS)
        return wait_ms

    async def remember(self, user_id: str, origin: Origin) -> None:
        """Note that the account logs in from there."""
        fields = [_ADDRESS + origin.place]
        if origin.device:
            fields.append(_DEVICE + origin.device)
        kinds = f"{_ADDRESS},{_DEVICE}"
        await self._call(
            "login_remember", [keys.places(user_id)], PLACES_LIFE_MS, MOST_PLACES, kinds, *fields
        )

    async def _call(self, function: str, names: list[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


def _counts(user_id: str, origin: Origin) -> list[str]:
    return [
        keys.limit("failed-login", f"{user_id}:{origin.place}"),
        keys.limit("failed-login-address", origin.address),
        keys.limit("failed-login-account", user_id),
    ]
