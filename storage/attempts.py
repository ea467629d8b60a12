"""The noun "attempt": how often somebody did something that is limited."""

from redis.asyncio import Redis

from storage import keys
from storage.errors import redis_away_is_store_away


class Attempts:
    """Counts attempts of one kind in fixed periods, for any number of processes. Raises StoreAway."""

    def __init__(self, redis: Redis, kind: str, most: int, period_s: int) -> None:
        self._redis = redis
        self._kind = kind
        self._most = most
        self._period_ms = period_s * 1000

    async def wait_ms(self, subject: str) -> int:
        """0 while `subject` may try, else the ms until it may again."""
        name = keys.limit(self._kind, subject)
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(name)
            pipeline.pttl(name)
            count, left_ms = await pipeline.execute()
        return max(1, left_ms) if int(count or 0) >= self._most else 0

    async def count(self, subject: str) -> None:
        """Count one attempt."""
        name = keys.limit(self._kind, subject)
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.set(name, 0, nx=True, px=self._period_ms)
            pipeline.incr(name)
            await pipeline.execute()
