"""What the tests of the waiting room and of sessions are made of: a room, what it holds, and time passing."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from protocol.envelope import Address
from storage import keys
from storage.admission import AdmissionSettings
from storage.connections import connect
from storage.holders import Entrance
from storage.nodes import Nodes
from storage.sessions import NextToken, Rights, Sessions, SignedIn
from storage.tickets import Admission, Asker, Place, Record, Tickets, Tier

TTL_S = 900.0
DEADLINE_S = 60.0
REFRESH_TTL_S = 604_800.0
RECORD_TTL_S = 600.0
MANY = 100
WAIT_FACTOR = 2.0

RIGHTS = Rights(role="NORMAL", permissions="")

PERMANENT = {
    keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_CONFIG, keys.PORTAL_STATS, keys.PORTAL_BUCKET,
    keys.PORTAL_UNTOLD, keys.PORTAL_WINDOW, keys.PORTAL_AWAY, keys.PORTAL_NODES,
}  # fmt: skip
"""The keys of the room itself, which stay."""

# Lets every time that a Redis holds lie further back, as if so much time had passed.
# KEYS: waiting, ready, untold, stats, bucket, window. ARGV: ms, ticket prefix, refresh tokens prefix.
_AGE = """
local ms = tonumber(ARGV[1])
local function back(key, field, by)
  local value = redis.call('HGET', key, field)
  if value then redis.call('HSET', key, field, string.format('%.0f', value - by)) end
end
for i, by in ipairs({ms * 1000, ms, ms, ms}) do
  for _, member in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    local score = tonumber(redis.call('ZSCORE', KEYS[i], member)) - by
    redis.call('ZADD', KEYS[i], string.format('%.0f', score), member)
  end
end
back(KEYS[5], 'lastArrival', ms * 1000)
back(KEYS[5], 'surveyed', ms * 1000)
back(KEYS[6], 'at', ms)
back(KEYS[6], 'rateAt', ms)
local window = redis.call('LRANGE', KEYS[7], 0, -1)
redis.call('DEL', KEYS[7])
for _, entry in ipairs(window) do
  local at, count = string.match(entry, '^(%d+):(%d+)$')
  redis.call('RPUSH', KEYS[7], string.format('%.0f:%s', at - ms, count))
end
for _, key in ipairs(redis.call('KEYS', '*')) do
  if string.sub(key, 1, #ARGV[2]) == ARGV[2] then
    local times = {'issuedAt', 'lastSeen', 'toldAt', 'readyAt', 'estimatedAt', 'due'}
    for _, field in ipairs(times) do back(key, field, ms) end
    back(key, 'order', ms * 1000)
  elseif string.sub(key, 1, #ARGV[3]) == ARGV[3] then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      local token, expires = string.match(all[i + 1], '^(%d+|%x+|)(%d+)$')
      if token then redis.call('HSET', key, all[i], token .. string.format('%.0f', expires - ms)) end
    end
  end
  local left = redis.call('PTTL', key)
  if left >= 0 then redis.call('PEXPIRE', key, left - ms) end
end
"""


@dataclass(frozen=True)
class Seen:
    """What a Redis holds of a room at one moment, by its Redis keys."""

    now_ms: int
    waiting: list[str]
    ready: dict[str, int]
    untold: dict[str, int]
    away: dict[str, int]
    stats: dict[str, str]
    bucket: dict[str, str]
    window: list[tuple[int, int]]
    tickets: dict[str, dict[str, str]]
    clients: dict[str, set[str]]
    holders: dict[str, str]
    nodes: dict[str, int]
    """Of every node: the first connection id that can be open."""
    left_ms: dict[str, int]
    """Of every key: the ms until it expires, -1 when it never does."""

    def count(self, counter: str) -> int:
        """One counter of the ledger."""
        return int(self.stats.get(counter, 0))

    def status(self, tid: str) -> str | None:
        """A ticket's status, None when it is not there any more."""
        return self.tickets.get(tid, {}).get("status")

    def abandoned(self, tid: str) -> bool:
        """Whether a waiting ticket's player has been away for longer than a place is kept."""
        return int(self.tickets[tid]["lastSeen"]) + TTL_S * 1000 < self.now_ms

    def is_away(self, tid: str) -> bool:
        """Whether a ticket was streamed by a connection that is gone."""
        ticket = self.tickets[tid]
        owner = Address.parse(ticket["owner"])
        is_cut = ticket["streaming"] == "1" and owner.connection_id < self.nodes.get(owner.server_id, 0)
        return ticket["streaming"] == "left" or is_cut


class Room:
    """The waiting room and the sessions behind it, as a worker and its players use them."""

    def __init__(self, url: str, ttl_s: float = TTL_S) -> None:
        self.redis = connect(url)
        self.tickets = Tickets(self.redis, ttl_s, WAIT_FACTOR)
        self.settings = AdmissionSettings(self.redis)
        self.sessions = Sessions(self.redis, REFRESH_TTL_S, ttl_s)
        self.nodes = Nodes(self.redis)
        self._numbers = itertools.count(1)
        self._sent_ms = itertools.count(1_000_000)

    def number(self) -> int:
        """A number that was not used before."""
        return next(self._numbers)

    def record(self) -> Record:
        """The record of a request that was not made before."""
        return Record(f"request-{self.number()}", RECORD_TTL_S)

    def place(self) -> tuple[str, str]:
        """A ticket id and a client id to be."""
        number = self.number()
        return f"tid_{number:04d}.signature", f"client_{number:04d}"

    def asker(self, connection_id: int | None = None, server_id: str = "SOCK001", behind: int = 0) -> Asker:
        """A connection, fresh unless its id is given, that asks after all others, or so many ms before."""
        address = Address(server_id, self.number() if connection_id is None else connection_id)
        return Asker(address, next(self._sent_ms) * 10 - behind)

    async def login(
        self,
        user_id: str,
        asker: Asker | None = None,
        *,
        family: str = "",
        most_waiting: int = 10_000,
        tier: Tier = Tier.NORMAL,
    ) -> Place:
        """Give a user a ticket, or hand the one they have over."""
        return await self.tickets.issue(
            self.place(), user_id, asker or self.asker(), Entrance(family), most_waiting, self.record(), tier
        )

    async def crowd(self, count: int, *, streaming: bool = False) -> list[Place]:
        """Give so many users a ticket, in order."""
        places = []
        for number in range(count):
            asker = self.asker()
            places.append(await self.login(f"user-{number}", asker))
            if streaming:
                await self.tickets.stream(places[-1].tid, places[-1].client_id, asker)
        return places

    async def admit(self, most: int = MANY, deadline_s: float = DEADLINE_S) -> Admission:
        """Call the token bucket."""
        return await self.tickets.admit(most, deadline_s)

    async def admit_ids(self, most: int = MANY, deadline_s: float = DEADLINE_S) -> list[str]:
        """The ids of those whom the token bucket admits now."""
        return [admitted.tid for admitted in (await self.admit(most, deadline_s)).admitted]

    async def finalize(
        self,
        ticket: Place,
        user_id: str,
        asker: Asker | None = None,
        *,
        going_on: NextToken | None = None,
        fresh: NextToken | None = None,
        record: Record | None = None,
        announcement: bytes = b"",
    ) -> SignedIn:
        """Spend a ticket."""
        fresh = fresh or NextToken(f"family-{self.number()}", 1, f"{self.number():064x}")
        return await self.sessions.finalize(
            (ticket.tid, ticket.client_id, user_id),
            asker or self.asker(),
            RIGHTS,
            (going_on, fresh),
            await self.now_ms(),
            record or self.record(),
            announcement,
        )

    async def sign_in(self, user_id: str, asker: Asker | None = None, **tokens: Any) -> SignedIn:
        """All the way from a login to a session, at a rate that keeps nobody waiting."""
        ticket = await self.login(user_id, asker)
        await self.pass_time(10.1)
        assert await self.admit_ids() == [ticket.tid]
        return await self.finalize(ticket, user_id, asker, **tokens)

    async def first_to_walk(self) -> int:
        """The rank at which a walk goes on."""
        score = await self.redis.hget(keys.PORTAL_STATS, "surveyed")
        return await self.redis.zcount(keys.PORTAL_WAITING, "-inf", f"({int(score or 0)}")

    async def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def pass_time(self, seconds: float) -> None:
        """Let everything in Redis be as much older."""
        names = [
            keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_UNTOLD, keys.PORTAL_AWAY, keys.PORTAL_STATS,
            keys.PORTAL_BUCKET, keys.PORTAL_WINDOW,
        ]  # fmt: skip
        prefixes = (keys.TICKET_PREFIX, keys.refresh_tokens(""))
        await self.redis.eval(_AGE, len(names), *names, str(int(seconds * 1000)), *prefixes)

    async def look(self) -> Seen:
        """See what Redis holds. Nothing may be under way."""
        names = sorted(key.decode() for key in await self.redis.execute_command("KEYS", "*"))
        tids = _named(names, keys.TICKET_PREFIX)
        clients = _named(names, keys.TICKET_CLIENT_PREFIX)
        holders = [name for name in names if name.endswith(keys.USER_TICKET_SUFFIX)]
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.zrange(keys.PORTAL_WAITING, 0, -1)
        pipeline.zrange(keys.PORTAL_READY, 0, -1, withscores=True)
        pipeline.zrange(keys.PORTAL_UNTOLD, 0, -1, withscores=True)
        pipeline.zrange(keys.PORTAL_AWAY, 0, -1, withscores=True)
        pipeline.hgetall(keys.PORTAL_STATS)
        pipeline.hgetall(keys.PORTAL_BUCKET)
        pipeline.lrange(keys.PORTAL_WINDOW, 0, -1)
        pipeline.hgetall(keys.PORTAL_NODES)
        for tid in tids:
            pipeline.hgetall(keys.ticket(tid))
        for tid in clients:
            pipeline.smembers(keys.ticket_client(tid))
        for name in holders:
            pipeline.get(name)
        for name in names:
            pipeline.pttl(name)
        answers = iter(await pipeline.execute())
        return Seen(
            waiting=[tid.decode() for tid in next(answers)],
            ready={tid.decode(): int(score) for tid, score in next(answers)},
            untold={tid.decode(): int(score) for tid, score in next(answers)},
            away={tid.decode(): int(score) for tid, score in next(answers)},
            stats=_text(next(answers)),
            bucket=_text(next(answers)),
            window=[(int(at), int(count)) for at, count in (entry.split(b":") for entry in next(answers))],
            nodes={name: int(first) for name, first in _text(next(answers)).items()},
            tickets={tid: _text(next(answers)) for tid in tids},
            clients={tid: {client.decode() for client in next(answers)} for tid in clients},
            holders={
                name.removeprefix(keys.USER_PREFIX).removesuffix(keys.USER_TICKET_SUFFIX): tid.decode()
                for name in holders
                if (tid := next(answers)) is not None
            },
            left_ms={name: next(answers) for name in names},
            now_ms=await self.now_ms(),
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self.redis.aclose()


@contextlib.asynccontextmanager
async def open_room(url: str, *, rate: int = 6_000_000, ttl_s: float = TTL_S) -> AsyncIterator[Room]:
    """A room that is closed in the end."""
    room = Room(url, ttl_s)
    try:
        await room.settings.configure(rate, 1)
        yield room
    finally:
        await room.close()


def _named(names: list[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
