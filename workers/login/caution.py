"""What makes a login wait: guesses from its address, and the risk that somebody else is behind it.

Nothing here knows whether there is such an account, so that nobody learns it from what is asked of them.
"""

from typing import NoReturn

from protocol.errors import INVALID_CREDENTIALS, TOO_MANY_ATTEMPTS, RequestError
from runtime.secrets import Purpose, Secrets
from runtime.settings import LimitsSettings
from storage.attempts import Attempts
from storage.audit import DENIED, Audit, Entry, WhenFull
from storage.logins import Logins, Origin, Outlook

NEW_PLACE, NEW_DEVICE, FAILURES = 0.25, 0.25, 0.5
"""What each adds to the risk. Only all three together reach a limit above 0.75: failures that strangers cause
never keep anybody waiting who logs in from a known address or on a known device."""

HASH_CHARACTERS = 32
"""128 bits tell all addresses apart that there can be."""

RISKY = (
    "Too many logins on this account have failed: wait for retryAfterMs, or log in where or on what you "
    "did before."
)


def risk_score(outlook: Outlook, most_failures: int) -> float:
    """How likely it is that somebody else is behind a login, from 0 to 1."""
    place = 0.0 if outlook.knows_place else NEW_PLACE
    device = 0.0 if outlook.knows_device else NEW_DEVICE
    return round(place + device + FAILURES * min(1.0, outlook.failures / most_failures), 2)


class Origins:
    """Turns addresses and fingerprints into the keyed hashes that are stored in their stead."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def address(self, peer: str) -> str:
        """What stands for an address, the same for whoever comes from there."""
        return self._hash(Purpose.ADDRESS, peer)

    def of(self, user_id: str, peer: str, fingerprint: str | None) -> Origin:
        """What stands for where a login comes from."""
        device = "" if not fingerprint else self._hash(Purpose.FINGERPRINT, f"{user_id}\n{fingerprint}")
        place = self._hash(Purpose.ADDRESS, f"{user_id}\n{peer}")
        return Origin(self.address(peer), place, device)

    def _hash(self, purpose: Purpose, text: str) -> str:
        return self._secrets.keyed_hash(purpose, text)[:HASH_CHARACTERS]


class Caution:
    """Looks at a login from all sides but the password's. Raises StoreAway.

    `told` lets an account's risk be written down once for as long as it lasts.
    """

    def __init__(self, logins: Logins, audit: Audit, told: Attempts, limits: LimitsSettings) -> None:
        self._logins = logins
        self._audit = audit
        self._told = told
        self._most_failures = limits.failed_logins_per_account_per_hour
        self._risk_limit = limits.risk_limit

    async def consider(self, user_id: str, origin: Origin) -> None:
        """Raise RequestError TOO_MANY_ATTEMPTS for a guess that must wait."""
        outlook = await self._logins.look(user_id, origin)
        self._refuse_guess(outlook)
        await self._risk(user_id, outlook)

    async def refuse(self, user_id: str, origin: Origin) -> NoReturn:
        """Count a wrong guess, and refuse it."""
        wait_ms = await self._logins.fail(user_id, origin)
        if wait_ms:
            raise RequestError(TOO_MANY_ATTEMPTS, retry_after_ms=wait_ms)
        raise RequestError(INVALID_CREDENTIALS)

    async def welcome(self, user_id: str, origin: Origin, *, by_password: bool) -> float:
        """Take in who has proven who they are, and remember where. Answers the risk that they are not.

        Raises RequestError TOO_MANY_ATTEMPTS when it is too high, and for a password when too many were wrong
        by now: of guesses at once, those beyond the limit must not learn whether they are right.
        """
        outlook = await self._logins.look(user_id, origin)
        if by_password:
            self._refuse_guess(outlook)
        risk = await self._risk(user_id, outlook)
        if not outlook.is_fresh:
            await self._logins.remember(user_id, origin)
        return risk

    @staticmethod
    def _refuse_guess(outlook: Outlook) -> None:
        if outlook.wait_ms:
            raise RequestError(TOO_MANY_ATTEMPTS, retry_after_ms=outlook.wait_ms)

    async def _risk(self, user_id: str, outlook: Outlook) -> float:
        risk = risk_score(outlook, self._most_failures)
        if risk >= self._risk_limit:
            if not await self._told.count(user_id):
                reason = f"risk {risk:g} after {outlook.failures} failures"
                await self._audit.append(
                    [Entry(user_id, "auth:login", f"user:{user_id}", DENIED, "risk", reason)],
                    WhenFull.COUNT,
                )
            raise RequestError(TOO_MANY_ATTEMPTS, RISKY, max(1, outlook.calm_ms))
        return risk
