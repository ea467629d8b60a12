"""The noun "session": a signed-in user's stay, the one connection that holds it, and its refresh tokens.

A family of refresh tokens begins with a login; each exchange makes its next token, and only the newest
is good. What is stored is a hash of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from protocol.envelope import Address
from storage import keys
from storage.errors import StoreAway, redis_away_is_store_away
from storage.queues import Busy
from storage.tickets import LIBRARY, ROOM, Asker, Record, TicketNotFound, address_of
from storage.wire import Argument, Executor

MOST_FAMILIES = 5
"""Devices on which a user can stay logged in; a further one ends the oldest."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a session may do, as Redis' fields hold it: names joined by commas."""

    role: str
    permissions: str


@dataclass(frozen=True, slots=True)
class NextToken:
    """A refresh token to be: its family, its number in it and the hash to store."""

    family: str
    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A spent ticket: the family and number of the refresh token, who was signed in before, when it was."""

    family: str
    number: int
    kicked: Address | None
    issued_ms: int


@dataclass(frozen=True, slots=True)
class Expelled:
    """What was ended: the connections that were signed in and had the ticket, and the families of tokens."""

    signed_in: Address | None
    waiting: Address | None
    families: int


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A user's stay as operators see it.

    `node` is where they are signed in now, None while they are nowhere. `last_login` is an ISO time and
    `risk_score` that login's, None before the first. `devices` stay logged in by a refresh token.
    """

    node: str | None
    last_login: str | None
    login_count: int
    risk_score: float | None
    devices: int


class NotReady(Exception):
    """The ticket's turn has not come."""


class NotYours(Exception):
    """The ticket belongs to another client id."""


class Revoked(Exception):
    """The family of tokens is over: logged out, revoked or expired."""


class Stale(Exception):
    """A request that was sent later has the session already."""


class Reused(Exception):
    """A refresh token was used twice; its family is revoked. Holds whose, and the connection signed out."""

    def __init__(self, user_id: str, signed_out: Address | None) -> None:
        super().__init__("A refresh token was used twice.")
        self.user_id = user_id
        self.signed_out = signed_out


class Sessions:
    """Sessions and refresh tokens. `refresh_ttl_s` is a refresh token's life. Raises StoreAway."""

    def __init__(self, redis: Executor, refresh_ttl_s: float, ticket_keep_s: float) -> None:
        self._redis = redis
        self._refresh_ttl_ms = int(refresh_ttl_s * 1000)
        self._ticket_keep_ms = int(ticket_keep_s * 1000)

    async def newest(self, user_id: str, family: str) -> int | None:
        """The number of the family's newest token, None when the family is over."""
        with redis_away_is_store_away():
            value = await self._redis.execute_command(
                "HGET", keys.refresh_tokens(user_id), f"family:{family}"
            )
        return None if value is None else int(value.split(b"|")[0])

    async def finalize(
        self,
        ticket: tuple[str, str, str],
        asker: Asker,
        rights: Rights,
        tokens: tuple[NextToken | None, NextToken],
        now_ms: int,
        record: Record,
        announcement: bytes = b"",
    ) -> SignedIn:
        """Spend a READY ticket and sign its user in at the asker's connection.

        `ticket` is its id, client id and user id. `tokens` are the one that goes on with the login's
        family, if there is one, and the first of a fresh family, taken when the other is out of date.
        `announcement`, an encoded one, is on the event bus with it. Raises TicketNotFound, NotReady,
        NotYours, or Busy where the bus is full: nothing has been done then.
        """
        tid, client_id, user_id = ticket
        going_on, fresh = tokens
        names = [
            keys.ticket(tid), keys.ticket_client(tid), keys.PORTAL_READY, keys.PORTAL_STATS,
            keys.user_ticket(user_id), keys.session(user_id), keys.refresh_tokens(user_id), record.key,
            keys.PORTAL_UNTOLD, keys.EVENT_BUS, keys.queue_meta(keys.EVENT_BUS),
            keys.queue_stats(keys.EVENT_BUS),
        ]  # fmt: skip
        continued: tuple[Argument, ...] = ("", 0, "")
        if going_on is not None:
            continued = (going_on.family, going_on.number - 1, going_on.hash)
        answer = await self._call(
            "ticket_finalize", names, tid, client_id, self._ticket_keep_ms, record.ttl_ms,
            asker.address.server_id, asker.address.connection_id, asker.sent_ms, _iso(now_ms),
            rights.role, rights.permissions, *continued, fresh.family, fresh.hash,
            *self._expiry(now_ms), MOST_FAMILIES, announcement,
        )  # fmt: skip
        match answer[0]:
            case b"missing":
                raise TicketNotFound
            case b"not ready":
                raise NotReady
            case b"not yours":
                raise NotYours
            case b"no bus":
                raise StoreAway("Redis has no event bus: whoever listens makes it again.")
            case b"full":
                raise Busy(f"Queue {keys.EVENT_BUS} is full.")
        _, family, number, kicked, issued_ms = answer
        return SignedIn(family.decode(), number, address_of(kicked), issued_ms)

    async def resume(self, user_id: str, family: str, asker: Asker) -> tuple[Address | None, str]:
        """Give the session to the asker's connection. Answers who had it, and the trace of the stay.

        Raises Revoked or Stale.
        """
        answer = await self._call(
            "session_resume", [keys.session(user_id), keys.refresh_tokens(user_id)], family,
            asker.address.server_id, asker.address.connection_id, asker.sent_ms,
        )  # fmt: skip
        if answer[0] == b"revoked":
            raise Revoked
        if answer[0] == b"stale":
            raise Stale
        return address_of(answer[1]), answer[2].decode()

    async def check(self, user_id: str, token: NextToken, record: Record) -> None:
        """See that a login's refresh token is its family's newest. Raises Revoked or Reused.

        `record` is the login's: one that has its result may come again, also when the family went on since.
        """
        names = [keys.refresh_tokens(user_id), keys.session(user_id), record.key]
        answer = await self._call(
            "tokens_check", names, token.family, token.number, token.hash, record.ttl_ms
        )
        _refuse(user_id, answer)

    async def rotate(
        self, user_id: str, token: NextToken, next_hash: str, now_ms: int, record: Record, rights: Rights
    ) -> tuple[int, int]:
        """Exchange a refresh token for its family's next, which bears these rights.

        Answers the next one's number and the ms since the epoch at which that was. Raises Revoked or Reused.
        """
        names = [keys.refresh_tokens(user_id), keys.session(user_id), record.key]
        answer = await self._call(
            "tokens_rotate", names, token.family, token.number, token.hash, next_hash,
            *self._expiry(now_ms), record.ttl_ms, rights.role, rights.permissions,
        )  # fmt: skip
        _refuse(user_id, answer)
        return answer[1], answer[2]

    async def revoke(self, user_id: str, family: str, record: Record) -> Address | None:
        """End a family. Answers the connection that was signed in with it. Raises Revoked when it is over."""
        names = [keys.refresh_tokens(user_id), keys.session(user_id), record.key]
        answer = await self._call("tokens_revoke", names, family, record.ttl_ms)
        _refuse(user_id, answer)
        return address_of(answer[1])

    async def expel(self, user_id: str) -> Expelled:
        """End the user's stay, with all tokens and the ticket. Asked again, it tells whom to close again."""
        names = [keys.session(user_id), keys.refresh_tokens(user_id), keys.user_ticket(user_id), *ROOM]
        prefixes = (keys.TICKET_PREFIX, keys.TICKET_CLIENT_PREFIX)
        signed_in, waiting, families = await self._call(
            "session_expel", names, *prefixes, self._ticket_keep_ms
        )
        return Expelled(address_of(signed_in), address_of(waiting), families)

    async def facts(self, user_id: str) -> SessionFacts:
        """What is known of a user's stay."""
        names = ("serverId", "last_login", "login_count", "risk_score")
        with redis_away_is_store_away():
            values = await self._redis.execute_command("HMGET", keys.session(user_id), *names)
            families = await self._redis.execute_command("HKEYS", keys.refresh_tokens(user_id))
        node, last_login, count, risk = [None if value is None else value.decode() for value in values]
        return SessionFacts(
            node=node,
            last_login=last_login,
            login_count=int(count or 0),
            risk_score=None if risk is None else float(risk),
            devices=sum(name.startswith(b"family:") for name in families),
        )

    def _expiry(self, now_ms: int) -> tuple[int, str, int]:
        expires_ms = now_ms + self._refresh_ttl_ms
        return expires_ms, _iso(expires_ms), self._refresh_ttl_ms

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


def _refuse(user_id: str, answer: Any) -> None:
    if answer[0] == b"missing":
        raise Revoked
    if answer[0] == b"reused":
        raise Reused(user_id, address_of(answer[1]))


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
