"""The noun "ticket": a place in the waiting room, from issue to its end.

Every change is one Function in `functions/tickets.lua`, and so is the admission of those whose turn it is.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.holders import Entrance, Holder
from storage.servers import hold
from storage.wire import Argument, Executor

LIBRARY = Library(
    *("order", "opening", "pace", "estimates", "away", "tickets", "admitting", "standing", "announcing"),
    *("raising", "sessions"),
)

PREFIXES = (keys.TICKET_PREFIX, keys.TICKET_CLIENT_PREFIX, keys.USER_PREFIX, keys.USER_TICKET_SUFFIX)


ROOM = (
    keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_STATS, keys.PORTAL_BUCKET, keys.PORTAL_UNTOLD,
    keys.PORTAL_AWAY,
)  # fmt: skip
"""What a place is given up in."""


class Tier(Enum):
    """Who is admitted before whom; the value is the band of the score."""

    VIP = 0
    PREMIUM = 1
    NORMAL = 2


@dataclass(frozen=True, slots=True)
class Record:
    """Where a request's first result is kept, and for how long, so that a repeat has no second effect."""

    name: str
    ttl_s: float

    @property
    def key(self) -> str:
        """The Redis key."""
        return keys.request_record(self.name)

    @property
    def ttl_ms(self) -> int:
        """The time to keep it, in ms."""
        return int(self.ttl_s * 1000)


@dataclass(frozen=True, slots=True)
class Asker:
    """The connection that asks, and when its node sent the request on, in ms since the epoch."""

    address: Address
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Place:
    """A ticket as its player sees it. `kicked` is the connection that lost it to the asker.

    `wait_s` is how long it is expected to take, None while nobody can say. Before an opening, at `opens_at`
    in ms since the epoch, the position is the last of the tier.
    """

    tid: str
    client_id: str
    status: TicketStatus
    position: int
    total_waiting: int
    kicked: Address | None = None
    deadline_s: float = 0.0
    wait_s: float | None = field(default=None, compare=False)
    opens_at: int | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A ticket that became READY; `owner` is the connection that streams it, if one does.

    `late_s` is how much later than it was first told it did, None where nothing was told at this rate.
    """

    tid: str
    owner: Address | None
    deadline_s: float
    late_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """A ticket that expired, and why in the words of QUEUE_EXPIRED.

    `owner` is the connection that streams it, if one does.
    """

    tid: str
    owner: Address | None
    reason: str


@dataclass(frozen=True, slots=True)
class Admission:
    """What one call of the token bucket did. `pause_s` is when it can do more, None while nobody waits."""

    admitted: list[Admitted]
    expired: list[Ended]
    waiting: int
    pause_s: float | None


@dataclass(frozen=True, slots=True)
class Update:
    """A position that is to be told; `reason` says why it is worse than the best one told so far.

    `wait_s` is how long it is expected to take and `p90_s` the time within which nine of ten are let in,
    both None while nobody can say.
    """

    owner: Address
    position: int
    reason: str | None
    wait_s: float | None = field(default=None, compare=False)
    p90_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a walk through a part of the waiting room found: who is to be told which position.

    `opens_at` is an opening that is still to come, in ms since the epoch.
    """

    total_waiting: int
    updates: list[Update]
    expired: list[Ended]
    opens_at: int | None


class TicketNotFound(Exception):
    """The ticket is unknown, expired or spent."""


class TakenOver(Exception):
    """Another login of the same user holds the ticket."""


class RoomFull(Exception):
    """The waiting room takes nobody more. Holds how many wait."""

    def __init__(self, total_waiting: int) -> None:
        super().__init__(f"{total_waiting} players wait already.")
        self.total_waiting = total_waiting


class Tickets:
    """The waiting room. Raises StoreAway.

    `ttl_s` is how long a place is kept for a player who is gone. `max_wait_factor` bounds what higher tiers
    can cost: nobody waits for more admissions than that times what arrival order alone would have taken.
    `draw` answers a user's number of 32 bits, by which those stand in line who come before the opening.
    """

    def __init__(
        self,
        redis: Executor,
        ttl_s: float,
        max_wait_factor: float = 2.0,
        draw: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._redis = redis
        self._ttl_ms = int(ttl_s * 1000)
        self._factor = max_wait_factor
        self._draw = draw

    async def total_rate(self) -> float:
        """How many are admitted a minute, by all pods together."""
        rate = await self._execute("HGET", keys.PORTAL_CONFIG, "totalRate")
        return float(rate or 0)

    async def standing_room(self, user_id: str) -> tuple[int, bool]:
        """How many are in line, and whether the user has a ticket."""
        with redis_away_is_store_away():
            waiting, has_ticket = await asyncio.gather(
                self._redis.execute_command("ZCARD", keys.PORTAL_WAITING),
                self._redis.execute_command("EXISTS", keys.user_ticket(user_id)),
            )
        return waiting, bool(has_ticket)

    async def issue(
        self,
        place: tuple[str, str],
        user_id: str,
        asker: Asker,
        entrance: Entrance,
        most_waiting: int,
        record: Record,
        tier: Tier = Tier.NORMAL,
    ) -> Place:
        """Give the user a ticket, or hand the one they have over to this login.

        `place` is the ticket id and client id to use. Raises RoomFull.
        """
        tid, client_id = place
        names = [
            keys.user_ticket(user_id), keys.PORTAL_WAITING, keys.PORTAL_STATS, record.key,
            keys.ticket(tid), keys.ticket_client(tid), keys.PORTAL_AWAY, keys.PORTAL_BUCKET,
            keys.PORTAL_CONFIG, keys.user_raise(user_id),
        ]  # fmt: skip
        answer = await self._call(
            "ticket_issue", names, tid, client_id, user_id, str(asker.address), asker.sent_ms, self._ttl_ms,
            most_waiting, entrance.family, record.ttl_ms, *PREFIXES[:2], tier.value, self._factor,
            entrance.risk, self._draw(user_id), entrance.trace, entrance.auto_match,
        )  # fmt: skip
        if answer[0] == b"full":
            raise RoomFull(answer[1])
        _, tid, client_id, status, position, total, kicked, wait_ms, opens_at = answer
        return Place(
            tid.decode(), client_id.decode(), TicketStatus(status.decode()), position, total,
            address_of(kicked), wait_s=_wait_s(wait_ms), opens_at=opens_at or None,
        )  # fmt: skip

    async def stream(self, tid: str, client_id: str, asker: Asker) -> Place:
        """Have the ticket's events sent to the asker. Raises TicketNotFound or TakenOver."""
        names = [
            keys.ticket(tid), keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_AWAY, keys.PORTAL_STATS,
            keys.PORTAL_BUCKET, keys.PORTAL_CONFIG,
        ]  # fmt: skip
        answer = await self._call(
            "ticket_stream", names, tid, client_id, str(asker.address), asker.sent_ms, self._ttl_ms,
            *PREFIXES[2:], self._factor,
        )  # fmt: skip
        _refuse(answer[0])
        _, status, position, total, kicked, left_ms, wait_ms, opens_at = answer
        return Place(
            tid, client_id, TicketStatus(status.decode()), position, total, address_of(kicked),
            left_ms / 1000, _wait_s(wait_ms), opens_at or None,
        )  # fmt: skip

    async def cancel(self, tid: str, client_id: str, user_id: str, record: Record) -> None:
        """Give the ticket up. Raises TicketNotFound or TakenOver."""
        names = [keys.ticket(tid), keys.ticket_client(tid), keys.user_ticket(user_id), record.key, *ROOM]
        _refuse((await self._call("ticket_cancel", names, tid, client_id, self._ttl_ms, record.ttl_ms))[0])

    async def holder(self, tid: str) -> Holder | None:
        """Whose a ticket is, whatever its status; None when it is unknown."""
        uid, *entrance = await self._execute("HMGET", keys.ticket(tid), "uid", "family", "trace", "autoMatch")
        if uid is None:
            return None
        family, trace, auto_match = ((value or b"").decode() for value in entrance)
        return Holder(uid.decode(), Entrance(family, trace=trace, auto_match=auto_match))

    async def admit(self, most: int, deadline_s: float) -> Admission:
        """Expire the no-shows and make READY those whose turn it is. Any number of processes may call.

        Expires the abandoned among them, too, and passes over those who are away.
        """
        names = [
            keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_STATS, keys.PORTAL_BUCKET, keys.PORTAL_WINDOW,
            keys.PORTAL_CONFIG, keys.PORTAL_UNTOLD, keys.PORTAL_AWAY, keys.PORTAL_NODES,
        ]  # fmt: skip
        today = datetime.now(UTC).date().isoformat()
        admitted, expired, waiting, pause_ms = await self._call(
            "ticket_admit", names, most, int(deadline_s * 1000), self._ttl_ms, *PREFIXES, today, self._ttl_ms,
            self._factor,
        )  # fmt: skip
        return Admission(
            admitted=[
                Admitted(tid.decode(), address_of(owner), deadline_s, None if late == b"" else late / 1000)
                for tid, owner, late in admitted
            ],
            expired=_ended(expired),
            waiting=waiting,
            pause_s=None if pause_ms < 0 else pause_ms / 1000,
        )

    async def told(self, tids: Sequence[str]) -> None:
        """Note that these tickets' players know that they are READY."""
        if tids:
            await self._call("ticket_told", [keys.PORTAL_UNTOLD], *tids)

    async def untold(self, since_s: float, most: int) -> list[Admitted]:
        """READY tickets whose players ought to know for `since_s` seconds, and may not."""
        names = [keys.PORTAL_UNTOLD, keys.PORTAL_READY]
        found = await self._call("ticket_untold", names, int(since_s * 1000), most, keys.TICKET_PREFIX)
        return [Admitted(tid.decode(), address_of(owner), left_ms / 1000) for tid, owner, left_ms in found]

    async def survey(self, first: int | None, count: int, least_s: float, again_s: float) -> Survey:
        """Walk `count` places from the `first` (0 is next, None goes on), expiring the abandoned.

        A place is told when it changed, at most every `least_s` seconds, and after `again_s` in any case.
        """
        names = [keys.PORTAL_WAITING, keys.PORTAL_STATS, keys.PORTAL_BUCKET, keys.PORTAL_CONFIG]
        total, updates, expired, opens_at = await self._call(
            "ticket_survey", names, "" if first is None else first, count, self._ttl_ms,
            int(least_s * 1000), int(again_s * 1000), self._ttl_ms, *PREFIXES, self._factor,
        )  # fmt: skip
        told = [
            Update(
                Address.parse(owner.decode()),
                position,
                reason.decode() or None,
                _wait_s(wait_ms),
                _wait_s(p90_ms),
            )
            for owner, position, reason, wait_ms, p90_ms in updates
        ]
        return Survey(total, told, _ended(expired), opens_at or None)

    async def touch(self, streamed: Sequence[tuple[str, Address]]) -> int:
        """Keep the places of tickets whose connection is open. Answers how many still are theirs."""
        return await self._touch("1", streamed)

    async def leave(self, streamed: Sequence[tuple[str, Address]]) -> int:
        """Note that the connections of these tickets are gone; their places are kept from now on.

        Answers how many were still theirs.
        """
        return await self._touch("left", streamed)

    async def _touch(self, streaming: str, streamed: Sequence[tuple[str, Address]]) -> int:
        pairs = [part for tid, owner in streamed for part in (tid, str(owner))]
        names, prefixes = [keys.PORTAL_WAITING, keys.PORTAL_AWAY], (keys.TICKET_PREFIX, *PREFIXES[2:])
        answer: int = await self._call("ticket_touch", names, self._ttl_ms, streaming, *prefixes, *pairs)
        return answer

    async def lead_survey(self, boot_id: str, ttl_s: float) -> bool:
        """Whether this process is the one that walks the waiting room now; asking in time keeps it so."""
        return await hold(self._redis, keys.PORTAL_SURVEY, boot_id, ttl_s)

    async def ledger(self) -> dict[str, float]:
        """The admission ledger at one moment: issued = waiting + ready + consumed + cancelled + expired.

        `outflow` is how many leave the line for each that the rate lets in, of late.
        """
        names = [
            keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_STATS, keys.PORTAL_CONFIG, keys.PORTAL_AWAY,
            keys.PORTAL_BUCKET,
        ]  # fmt: skip
        answer = await self._call("ticket_ledger", names, *_COUNTERS)
        waiting, ready, rate, average, off, outflow, *counts = answer
        return {
            "waiting": waiting,
            "ready": ready,
            **{name: int(count or 0) for name, count in zip(_COUNTERS, counts, strict=True)},
            "totalRate": float(rate or 0),
            "avgWaitSec": float(average or 0),
            "estimateErrorSec": float(off or 0),
            "outflow": float(outflow),
        }

    async def _execute(self, *command: Argument) -> Any:
        with redis_away_is_store_away():
            return await self._redis.execute_command(*command)

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


_COUNTERS = ("consumed", "cancelled", "expired", "issued")


def _refuse(outcome: bytes) -> None:
    if outcome == b"missing":
        raise TicketNotFound
    if outcome == b"taken":
        raise TakenOver


def _wait_s(wait_ms: int) -> float | None:
    return None if wait_ms < 0 else wait_ms / 1000


def address_of(text: bytes) -> Address | None:
    """The connection that a Function names, None where it names none."""
    return Address.parse(text.decode()) if text else None


def _ended(rows: Sequence[tuple[bytes, bytes, bytes]]) -> list[Ended]:
    return [Ended(tid.decode(), address_of(owner), reason.decode()) for tid, owner, reason in rows]
