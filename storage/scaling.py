"""The noun "decision": how many workers of a kind there should be, for whoever starts and stops them."""

import msgspec

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.servers import hold
from storage.wire import Executor

KEPT_S = 60
"""A decision that nobody renews is forgotten: without operations the workers stay as they are."""


class Decision(msgspec.Struct, frozen=True):
    """How many workers of a kind there are and should be, and why. Times in ms since the epoch.

    `since_at` is from when on the load has asked for more, or for fewer, without a break.
    """

    kind: str
    now: int
    wanted: int
    load: float
    reason: str
    changed_at: int = 0
    since_at: int = 0


class Scaling:
    """The newest decision about each kind of worker, and who follows them. Raises StoreAway."""

    def __init__(self, redis: Executor) -> None:
        self._redis = redis
        self._decoder = msgspec.json.Decoder(dict[str, Decision])

    async def decisions(self) -> dict[str, Decision]:
        """What was decided last, by kind."""
        with redis_away_is_store_away():
            kept = await self._redis.execute_command("GET", keys.SCALING_DECISIONS)
        return {} if kept is None else self._decoder.decode(kept)

    async def decide(self, decisions: dict[str, Decision]) -> None:
        """Make these the newest ones."""
        with redis_away_is_store_away():
            await self._redis.execute_command(
                "SET", keys.SCALING_DECISIONS, msgspec.json.encode(decisions), "EX", KEPT_S
            )

    async def follow(self, name: str, ttl_s: float) -> str | None:
        """Be the one who follows the decisions for so long. Answers None, or the name of who does already."""
        if await hold(self._redis, keys.SCALING_FOLLOWER, name, ttl_s):
            return None
        return await self.follower() or "somebody else"

    async def follower(self) -> str | None:
        """Who follows the decisions."""
        with redis_away_is_store_away():
            name: bytes | None = await self._redis.execute_command("GET", keys.SCALING_FOLLOWER)
        return None if name is None else name.decode()
