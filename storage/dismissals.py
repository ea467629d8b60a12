"""The noun "dismissal": an operator's word that one process is to finish what it has accepted and end.

It lies in Redis under the process's name and names its present life; the process looks with every heartbeat.
"""

import msgspec
from redis.asyncio import Redis

from storage import keys
from storage.audit import as_field
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.servers import Holder

LIBRARY = Library("audit", "dismissals")

KEPT_S = 3600
"""For so long a process that is busy or cut off from Redis still finds the word."""


class Dismissals:
    """Asks processes to end. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def dismiss(self, server_id: str, operator: str) -> Holder | None:
        """Have the process that bears the id end as SIGTERM would. Answers it, None where nobody does."""
        names = [
            keys.server_lease(server_id), keys.server_dismissal(server_id), keys.AUDIT_LOGS,
            keys.AUDIT_PENDING,
        ]  # fmt: skip
        args = (KEPT_S * 1000, as_field(operator), as_field(server_id))
        held = await LIBRARY.call(self._redis, "server_dismiss", names, args)
        return None if held is None else msgspec.json.decode(held, type=Holder)

    async def holder(self, server_id: str) -> Holder | None:
        """The live process that bears the id now."""
        with redis_away_is_store_away():
            held = await self._redis.get(keys.server_lease(server_id))
        return None if held is None else msgspec.json.decode(held, type=Holder)
