"""The noun "attempt": how often somebody did something that is limited."""

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.wire import Executor


class Attempts:
    """Counts attempts of one kind in fixed periods, for any number of processes. Raises StoreAway."""

    def __init__(self, redis: Executor, kind: str, most: int, period_s: int) -> None:
        self._redis = redis
        self._kind = kind
        self._most = most
        self._period_ms = period_s * 1000

    async def wait_ms(self, subject: str) -> int:
        """0 while `subject` may try, else the ms until it may again."""
        name = keys.limit(self._kind, subject)
        with redis_away_is_store_away():
            if int(await self._redis.execute_command("GET", name) or 0) < self._most:
                return 0
            left_ms: int = await self._redis.execute_command("PTTL", name)
        return max(1, left_ms)

    async def count(self, subject: str) -> None:
        """Count one attempt."""
        name = keys.limit(self._kind, subject)
        with redis_away_is_store_away():
            await self._redis.execute_command("INCR", name)
            # Only the first of a period sets its end; and one that died in between is made good by the next.
            await self._redis.execute_command("PEXPIRE", name, self._period_ms, "NX")
