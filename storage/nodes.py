"""The noun "node": which connections of a socket node can still be open, as the waiting room sees it.

A node numbers its connections from its start on. Lower numbers, of an earlier life, are gone with whoever
streamed a ticket over them.
"""

from redis.asyncio import Redis

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.servers import now_ms

NUMBER_BITS = 20


def first_number() -> int:
    """Above every number that a boot of any node has given out until now.

    The time is in the high bits: no two boots of a server id ever give out the same number, and a reply to an
    earlier one's request answers nobody's.
    """
    return now_ms() << NUMBER_BITS


class Nodes:
    """Tells the waiting room whose connections are gone. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def lives(self, server_id: str, first: int) -> bool:
        """Connections of the node from this number on can be open. Answers whether that was known."""
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hget(keys.PORTAL_NODES, server_id)
            pipeline.hset(keys.PORTAL_NODES, server_id, str(first))
            known, _ = await pipeline.execute()
        return bool(known == str(first).encode())

    async def is_gone(self, server_id: str) -> None:
        """No connection that the node has taken until now is open any more."""
        await self.lives(server_id, first_number())
