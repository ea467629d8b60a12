"""What the tests of matching are made of: players at a node, what Redis holds of them, and time passing."""

import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from protocol.envelope import Address
from storage import keys
from storage.connections import connect
from storage.matches import Entered, MatchBoard, Matches, Proposal, Verdict, Waiter, Wish
from storage.tickets import Record

NODE = "SOCK001"
SESSION_TTL_S = 600.0
WAIT_MS = 60_000

# Lets everybody who waits, and every session, be as much older. ARGV: ms, prefixes of match and queue.
_AGE = """
local ms = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  if string.sub(key, 1, #ARGV[2]) == ARGV[2] then
    for _, field in ipairs({'created_at', 'deadline'}) do
      redis.call('HSET', key, field, string.format('%.0f', redis.call('HGET', key, field) - ms))
    end
  elseif string.sub(key, 1, #ARGV[3]) == ARGV[3] or key == 'game_deadlines' or key == 'game_untold' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('ZINCRBY', key, -ms, member)
    end
  end
end
"""


class Lobby:
    """Players who look for opponents, as a matching worker and their node see them."""

    def __init__(self, url: str) -> None:
        self.redis: Any = connect(url)
        self.matches = Matches(self.redis, SESSION_TTL_S)
        self.board = MatchBoard(self.redis)
        self.cursor = ""
        self.changes: list[Waiter | int] = []
        self._numbers = itertools.count(1)

    def record(self) -> Record:
        """The record of a request that was not made before."""
        return Record(f"request-{uuid.uuid4().hex}", 600.0)

    async def connect(self, *user_ids: str, node: str = NODE) -> None:
        """Sign players in at a node that lives."""
        await self.redis.sadd(keys.QUEUE_IDS, keys.node_queue(node))
        for user_id in user_ids:
            at: dict[str, str | int] = {"serverId": node, "connectionId": next(self._numbers)}
            await self.redis.hset(keys.session(user_id), mapping=at)

    async def disconnect(self, user_id: str) -> None:
        """The player's connection is closed."""
        await self.redis.hdel(keys.session(user_id), "serverId", "connectionId")

    async def address(self, user_id: str) -> Address:
        """Where a player is signed in."""
        server_id, connection_id = await self.redis.hmget(keys.session(user_id), ["serverId", "connectionId"])
        return Address(server_id.decode(), int(connection_id))

    async def enter(self, *wishes: Wish, records: Sequence[Record] = ()) -> list[Entered]:
        """Have players wait."""
        given = list(records) or [self.record() for _ in wishes]
        news, entered = await self.matches.enter(self.cursor, list(zip(wishes, given, strict=True)))
        self._hear(news)
        return entered

    async def wait(self, *user_ids: str, **wish: Any) -> list[int]:
        """Have connected players wait for alike. Answers their entries."""
        await self.connect(*user_ids)
        return [each.entry for each in await self.enter(*(wants(user_id, **wish) for user_id in user_ids))]

    async def claim(self, *proposals: Proposal) -> list[Verdict]:
        """Make matches."""
        verdicts = await self.matches.claim(proposals)
        await self.enter()  # brings what the feed has since
        return verdicts

    async def match(self, session_id: str, *user_ids: str) -> Verdict:
        """Make a match of players who wait."""
        (verdict,) = await self.claim(await self.proposal(session_id, *user_ids))
        return verdict

    async def proposal(self, session_id: str, *user_ids: str) -> Proposal:
        """A match to be of players who wait."""
        standings = [await self.board.standing(user_id) for user_id in user_ids]
        players = tuple(
            (user_id, each.waiter.entry if each else 0)
            for user_id, each in zip(user_ids, standings, strict=True)
        )
        return Proposal(session_id, "easy", 5, "asia", 2.0, players)

    async def pass_time(self, seconds: float) -> None:
        """Let everybody have waited so much longer."""
        prefixes = (keys.GAME_MATCH_PREFIX, keys.GAME_WAITING_PREFIX)
        await self.redis.eval(_AGE, 0, str(int(seconds * 1000)), *prefixes)

    async def queues(self) -> dict[str, list[str]]:
        """Who is in which queue, the longest waiting first."""
        found = {}
        for name in await self.redis.keys(f"{keys.GAME_WAITING_PREFIX}*"):
            found[name.decode()] = [member.decode() for member in await self.redis.zrange(name, 0, -1)]
        return found

    async def status(self, user_id: str) -> str | None:
        """What a player's hash says."""
        value = await self.redis.hget(keys.game_match(user_id), "status")
        return None if value is None else value.decode()

    def _hear(self, news: Any) -> None:
        self.cursor = news.cursor
        self.changes += news.changes


def wants(user_id: str, **given: Any) -> Wish:
    """What a player asks for, usually."""
    usual = {"difficulty": "easy", "level": 5, "region": "asia", "size": 2, "wait_ms": WAIT_MS}
    return Wish(user_id, **{**usual, **given})


@contextlib.asynccontextmanager
async def open_lobby(url: str) -> AsyncIterator[Lobby]:
    """A lobby that is closed in the end."""
    lobby = Lobby(url)
    try:
        yield lobby
    finally:
        await lobby.redis.aclose()
