"""Looking at who waits and who plays; nothing here changes anything but what is noted as done."""

from collections.abc import Sequence
from typing import Any

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.matches import facts
from storage.matches.facts import DIFFICULTIES, MOST_LEVEL, Bucket, Session, Standing, Waiter
from storage.matches.matches import LIBRARY, PREFIXES
from storage.wire import Argument, Executor

LEVELS_PER_READ = 10
"""Queues that are read at once: it keeps Redis for 7 ms while 50,000 wait."""


class MatchBoard:
    """The queues of players and the sessions of play, to be looked at. Raises StoreAway."""

    def __init__(self, redis: Executor) -> None:
        self._redis = redis

    async def waiting(self) -> list[Waiter]:
        """Everybody who waits, in several steps: what changes meanwhile is in the feed."""
        found: list[Waiter] = []
        for difficulty in DIFFICULTIES:
            for first in range(1, MOST_LEVEL + 1, LEVELS_PER_READ):
                rows = await self._call("game_waiting", difficulty, first, first + LEVELS_PER_READ - 1)
                found += [facts.waiter(rows[at], rows[at + 1]) for at in range(0, len(rows), 2)]
        return found

    async def present(self, user_ids: Sequence[str]) -> set[str]:
        """Who of these is connected."""
        found = await self._call("game_present", *user_ids)
        return {user_id for user_id, at in zip(user_ids, found, strict=True) if at}

    async def standing(self, user_id: str) -> Standing | None:
        """Where a player stands, None for one who neither waits nor plays."""
        answer = await self._call("game_stand", user_id)
        if answer is None:
            return None
        status, row, waited_ms, left_ms, expected, session_id, others = answer
        return Standing(
            waiter=facts.waiter(user_id.encode(), row),
            meeting=facts.meeting(session_id, others) if status == b"matched" else None,
            waited_ms=waited_ms,
            left_ms=left_ms,
            expected_ms=facts.number(expected),
        )

    async def session(self, session_id: str) -> Session | None:
        """A session that goes on, None for one that is over or was never."""
        names = ("difficulty", "level", "region", "cost", "players", "created_at")
        with redis_away_is_store_away():
            values = await self._redis.execute_command("HMGET", keys.game_session(session_id), *names)
        if values[0] is None:
            return None
        difficulty, level, region, cost, players, created_at = (value.decode() for value in values)
        return Session(
            session_id,
            difficulty,
            int(level),
            region,
            float(cost),
            tuple(players.split(",")),
            int(created_at),
        )

    async def unwritten(self, since_s: float, most: int) -> list[str]:
        """Sessions of which the database may not know since so many seconds."""
        with redis_away_is_store_away():
            seconds, _ = await self._redis.execute_command("TIME")
            upto = int((int(seconds) - since_s) * 1000)
            found = await self._redis.execute_command(
                "ZRANGE", keys.GAME_UNWRITTEN, "-inf", upto, "BYSCORE", "LIMIT", 0, most
            )
        return [session_id.decode() for session_id in found]

    async def written(self, session_ids: Sequence[str]) -> None:
        """Note that the database knows these sessions."""
        if session_ids:
            with redis_away_is_store_away():
                await self._redis.execute_command("ZREM", keys.GAME_UNWRITTEN, *session_ids)

    async def buckets(self) -> list[Bucket]:
        """The queues in which somebody waits, was matched or timed out."""
        return [
            Bucket(
                difficulty,
                level,
                waiting,
                oldest_ms,
                int(matched),
                int(timed_out),
                facts.number(wait),
                facts.number(cost),
            )
            for difficulty in DIFFICULTIES
            for level, waiting, oldest_ms, matched, timed_out, wait, cost in await self._call(
                "game_buckets", difficulty, 1, MOST_LEVEL
            )
        ]

    async def _call(self, function: str, *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, [], [*PREFIXES, *args])
