"""The noun "raise": a player goes before others of their tier for a while, for urgent work under way."""

from storage import keys
from storage.tickets import LIBRARY, Record, Tier
from storage.wire import Executor

RAISED_TO = Tier.PREMIUM
"""Who is VIP is passed by nobody."""


class Raises:
    """Raises players. `ttl_s` is how long that lasts. Raises StoreAway."""

    def __init__(self, redis: Executor, ttl_s: float) -> None:
        self._redis = redis
        self._ttl_ms = int(ttl_s * 1000)

    async def grant(self, user_id: str, record: Record) -> bool:
        """Raise a user, once for each record. Answers whether they had a ticket that was moved."""
        names = [
            keys.user_raise(user_id), keys.user_ticket(user_id), keys.PORTAL_WAITING, keys.PORTAL_STATS,
            record.key,
        ]  # fmt: skip
        args = [RAISED_TO.value, self._ttl_ms, record.ttl_ms, keys.TICKET_PREFIX]
        answer = await LIBRARY.call(self._redis, "ticket_raise", names, args)
        return bool(answer[0])
