"""Every change of who waits and who plays: one Function each, in `functions/matching.lua` and
`functions/meeting.lua`.

What comes and goes is also in the feed: each call that workers make often brings what is new there, so that
who waits is known in memory and nothing is read twice.
"""

from collections.abc import Sequence
from typing import Any

from protocol.envelope import Address
from storage import keys
from storage.functions import Library
from storage.matches import facts
from storage.matches.facts import AlreadyMatched, Entered, News, NotInQueue, Proposal, TimedOut, Verdict, Wish
from storage.tickets import Record, address_of
from storage.wire import Argument, Executor

LIBRARY = Library("matching", "meeting", "board")

PREFIXES = (
    keys.GAME_MATCH_PREFIX, keys.SESSION_PREFIX, keys.GAME_WAITING_PREFIX, keys.GAME_SESSION_PREFIX,
    keys.GAME_STATS_PREFIX, keys.QUEUE_IDS, keys.NODE_QUEUE_SUFFIX, keys.PORTAL_NODES,
)  # fmt: skip


class Matches:
    """Who waits and who meets. `session_ttl_s` is how long a session that nobody finishes keeps its players.

    Raises StoreAway.
    """

    def __init__(self, redis: Executor, session_ttl_s: float) -> None:
        self._redis = redis
        self._session_ttl_ms = int(session_ttl_s * 1000)

    # Waiting.

    async def enter(self, cursor: str, asked: Sequence[tuple[Wish, Record]]) -> tuple[News, list[Entered]]:
        """Have players wait, those who may. A repeat of a request finds what its first came to."""
        args: list[Argument] = []
        for wish, record in asked:
            args += [
                wish.user_id, wish.difficulty, wish.level, wish.region, wish.size, wish.wait_ms, wish.skill,
                record.key, record.ttl_ms,
            ]  # fmt: skip
        names = [keys.GAME_FEED, keys.GAME_DEADLINES, keys.GAME_ENTRIES]
        news, answers = await self._call("game_enter", names, cursor, *args)
        return facts.news(news), [facts.entered(answer) for answer in answers]

    async def cancel(self, user_id: str, record: Record) -> None:
        """Take a player out of the queue. Raises NotInQueue or AlreadyMatched."""
        names = [keys.GAME_FEED, keys.GAME_DEADLINES, record.key]
        answer = await self._call("game_cancel", names, user_id, record.ttl_ms)
        if answer[0] == b"missing":
            raise NotInQueue
        if answer[0] == b"matched":
            raise AlreadyMatched(facts.meeting(answer[2], answer[3]))

    async def expire(self, ahead_s: float, most: int) -> list[TimedOut]:
        """Take those out whose time is up within so many seconds."""
        names = [keys.GAME_FEED, keys.GAME_DEADLINES]
        rows = await self._call("game_expire", names, int(ahead_s * 1000), most)
        return [TimedOut(user_id.decode(), waited_ms, address_of(at)) for user_id, waited_ms, at in rows]

    # Meeting.

    async def claim(self, proposals: Sequence[Proposal]) -> list[Verdict]:
        """Make matches of proposals, of each all of its players or none."""
        args: list[Argument] = []
        for each in proposals:
            args += [each.session_id, each.difficulty, each.level, each.region, each.cost, len(each.players)]
            args += [part for player in each.players for part in player]
        names = [keys.GAME_FEED, keys.GAME_DEADLINES, keys.GAME_UNTOLD]
        answers = await self._call("game_claim", names, self._session_ttl_ms, *args)
        return [Verdict(answer[0] == 1, tuple(map(facts.presence, answer[1:]))) for answer in answers]

    async def told(self, session_ids: Sequence[str]) -> None:
        """Note that the players of these sessions have been told."""
        if session_ids:
            names = [keys.GAME_UNTOLD, keys.GAME_UNWRITTEN]
            await LIBRARY.call(self._redis, "game_told", names, list(session_ids))

    async def untold(self, since_s: float, most: int) -> list[tuple[str, list[Address]]]:
        """Sessions whose players ought to know for `since_s` seconds, may not, and are all there: where.

        Where one has vanished, the session is undone: all wait again, since when they did.
        """
        names = [keys.GAME_UNTOLD, keys.GAME_FEED, keys.GAME_DEADLINES]
        rows = await self._call("game_untold", names, int(since_s * 1000), most)
        return [(row[0].decode(), [Address.parse(at.decode()) for at in row[1:]]) for row in rows]

    async def finish(self, session_id: str, user_ids: Sequence[str]) -> int:
        """End a session, so that its players are free. Answers how many still were in it."""
        names = [keys.game_session(session_id), keys.GAME_UNTOLD, keys.GAME_UNWRITTEN]
        count: int = await self._call("game_finish", names, session_id, *user_ids)
        return count

    # The feed.

    async def tick(self, cursor: str, who: str, ttl_s: float) -> tuple[News, bool, int]:
        """What the feed has, whether `who` sweeps now, and Redis' time in ms since the epoch.

        It sweeps for `ttl_s` seconds, and on when it asks again in that time.
        """
        names = [keys.GAME_FEED, keys.GAME_SWEEPER]
        args: list[Argument] = [cursor, who, int(ttl_s * 1000)]
        news, sweeps, now_ms = await LIBRARY.call(self._redis, "game_tick", names, args)
        return facts.news(news), sweeps == 1, now_ms

    async def leave_sweeping(self, who: str) -> None:
        """Let another sweep at once."""
        await LIBRARY.call(self._redis, "game_leave", [keys.GAME_SWEEPER], [who])

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, [*PREFIXES, *args])
