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
            return await self._left_ms(name)

    async def count(self, subject: str) -> int:
        """Count one attempt. Answers 0, or the ms until `subject` may try again when it was one too many.

        Of any number that are counted at once no more than the limit get 0.
        """
        name = keys.limit(self._kind, subject)
        with redis_away_is_store_away():
            count = await self._add(name, 1)
            return 0 if count <= self._most else await self._left_ms(name)

    async def forgive(self, subject: str) -> None:
        """Take back one attempt that got 0 and came to nothing."""
        with redis_away_is_store_away():
            await self._add(keys.limit(self._kind, subject), -1)

    async def _add(self, name: str, number: int) -> int:
        count: int = await self._redis.execute_command("INCRBY", name, number)
        await self._end_period(name)
        return count

    async def _end_period(self, name: str) -> None:
        # Only the first of a period sets its end; and one that died in between is made good by the next.
        await self._redis.execute_command("PEXPIRE", name, self._period_ms, "NX")

    async def _left_ms(self, name: str) -> int:
        await self._end_period(name)
        left_ms: int = await self._redis.execute_command("PTTL", name)
        return max(1, left_ms)
