"""The noun "audit": who did what, and what was decided of it. One writer for all.

An entry goes to the bounded list that operators look at and, in the same step, to a stream. What is in the
stream is moved to SQL in batches, by `drain`, which loses and doubles nothing wherever it is cut off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.database import Database
from storage.errors import StoreAway, redis_away_is_store_away
from storage.escaping import escaped
from storage.functions import Library
from storage.servers import hold
from storage.tables import audit_logs
from storage.wire import Executor

LIBRARY = Library("audit")

MOST_PENDING = 100_000
"""Entries that may wait for SQL. What becomes of more is WhenFull's."""

BATCH = 500
"""Entries moved to SQL in one transaction."""

NO_POLICY = "-"

ALLOWED, DENIED = "ALLOWED", "DENIED"

ATTEMPTS = 5
"""How often a batch is inserted while others insert the same entries."""

_COLUMNS = {"who": 128, "action": 255, "resource": 512, "result": 16, "policy": 64, "reason": 512}
"""How many characters the columns of an entry hold."""


class WhenFull(Enum):
    """What becomes of an entry while MOST_PENDING wait for SQL."""

    WRITE = "write"
    """What operators do is written down regardless."""

    REFUSE = "refuse"
    """A player's question is not answered, so that every answer that is given is written down."""

    COUNT = "count"
    """What lobbyd decides of players by itself goes on: the newest lines show it, and SQL lacks it, which is
    counted."""


@dataclass(frozen=True, slots=True)
class Arrears:
    """What SQL has not: entries that wait for it, and how many, ever, were lost to it."""

    pending: int
    lost: int


class AuditFull(StoreAway):
    """As many entries wait for SQL as may."""

    def __init__(self) -> None:
        super().__init__(f"{MOST_PENDING:,} entries of the audit log wait for SQL")


@dataclass(frozen=True, slots=True)
class Entry:
    """Who wanted what, what came of it and by which policy's word. All texts may be of anybody's choice."""

    who: str
    action: str
    resource: str
    result: str
    policy: str
    reason: str = ""

    def texts(self) -> tuple[str, ...]:
        """The texts as they are written down: none of them can end its field or its line."""
        raw = (self.who, self.action, self.resource, self.result, self.policy, self.reason)
        *line, reason = (as_field(text, most) for text, most in zip(raw, _COLUMNS.values(), strict=True))
        return *line, reason if self.reason else ""


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as SQL has it, its texts escaped. `at_ms` is ms since the epoch."""

    at_ms: int
    who: str
    action: str
    resource: str
    result: str
    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Search:
    """What rows must be; None leaves it open. A text that ends in `*` is a beginning."""

    who: str | None = None
    action: str | None = None
    resource: str | None = None
    result: str | None = None
    since_ms: int | None = None


def as_field(text: str, most_characters: int = 128) -> str:
    """A text as a field of an audit line, which "|" ends; a long one is cut, and ends in `…`."""
    field = escaped(text, "|") or "?"
    return field if len(field) <= most_characters else f"{field[: most_characters - 1]}…"


class Audit:
    """The audit log of one system. Any number of processes may write. Every method raises StoreAway."""

    def __init__(self, redis: Executor) -> None:
        self._redis = redis

    async def append(
        self,
        entries: Iterable[Entry],
        when_full: WhenFull = WhenFull.WRITE,
        most_pending: int = MOST_PENDING,
    ) -> None:
        """Write entries down. Raises AuditFull where they are refused since `most_pending` wait already."""
        texts = [text for entry in entries for text in entry.texts()]
        names = [keys.AUDIT_LOGS, keys.AUDIT_PENDING, keys.AUDIT_LOST]
        given = [most_pending, when_full.value, *texts]
        done = await LIBRARY.call(self._redis, "audit_append", names, given)
        if not done:
            raise AuditFull

    async def tail(self, count: int) -> list[str]:
        """The newest lines, oldest first: `time|who|action|resource|result|policy`."""
        with redis_away_is_store_away():
            lines = await self._redis.execute_command("LRANGE", keys.AUDIT_LOGS, 0, count - 1)
        return [line.decode() for line in reversed(lines)]

    async def drain(self, database: Database) -> int:
        """Move what waits to SQL, BATCH at most. Answers how many were moved."""
        found = await LIBRARY.call(self._redis, "audit_read", [keys.AUDIT_PENDING], [BATCH])
        rows = [_row(audit_id.decode(), fields) for audit_id, fields in found]
        if rows:
            await _insert(database, rows)
            with redis_away_is_store_away():
                await self._redis.execute_command(
                    "XDEL", keys.AUDIT_PENDING, *(row["audit_id"] for row in rows)
                )
        return len(rows)

    async def arrears(self) -> Arrears:
        """What SQL has not."""
        with redis_away_is_store_away():
            pending = await self._redis.execute_command("XLEN", keys.AUDIT_PENDING)
            lost = await self._redis.execute_command("GET", keys.AUDIT_LOST)
        return Arrears(pending, int(lost or 0))

    async def lead(self, boot_id: str, ttl_s: float) -> bool:
        """Whether this process is the one that drains now; asking in time keeps it so.

        A second one would do no harm, but the same work.
        """
        return await hold(self._redis, keys.AUDIT_LEASE, boot_id, ttl_s)


async def thin(database: Database, before_ms: int) -> int:
    """Remove the oldest rows of before a time in ms since the epoch, BATCH at most. Answers how many.

    Raises StoreAway.
    """
    old = select(audit_logs.c.audit_id).where(audit_logs.c.audit_id < _first_id(before_ms))
    oldest = old.order_by(audit_logs.c.audit_id).limit(BATCH)

    async def work(connection: AsyncConnection) -> int:
        found = list(await connection.scalars(oldest))
        if found:
            await connection.execute(delete(audit_logs).where(audit_logs.c.audit_id.in_(found)))
        return len(found)

    return await database.transaction(work)


async def search(database: Database, wanted: Search, most: int) -> list[Row]:
    """The newest rows that are as wanted, oldest first. Raises StoreAway."""

    async def query(connection: AsyncConnection) -> list[Row]:
        newest = select(audit_logs).where(*_conditions(wanted))
        newest = newest.order_by(audit_logs.c.audit_id.desc()).limit(most)
        return [_found(**row._asdict()) for row in await connection.execute(newest)]

    return (await database.read(query))[::-1]


def _conditions(wanted: Search) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for column, text in (
        (audit_logs.c.who, wanted.who),
        (audit_logs.c.action, wanted.action),
        (audit_logs.c.resource, wanted.resource),
        (audit_logs.c.result, wanted.result),
    ):
        if text is None:
            continue
        if text.endswith("*"):
            conditions.append(column.startswith(escaped(text[:-1], "|"), autoescape=True))
        else:
            conditions.append(column == escaped(text, "|"))
    if wanted.since_ms is not None:
        conditions.append(audit_logs.c.audit_id >= _first_id(wanted.since_ms))
    return conditions


def _first_id(at_ms: int) -> str:
    """What no id of this time or later comes before: in order to 2286, while times have 13 digits."""
    return f"{at_ms:013}"


def _row(audit_id: str, fields: Sequence[bytes]) -> Mapping[str, Any]:
    """A row that fits its table, whoever wrote the entry: what lies in Redis must not end who reads it."""
    said = dict(zip(fields[::2], fields[1::2], strict=False))
    texts = {
        name: said.get(name.encode(), b"").decode(errors="replace")[:most] for name, most in _COLUMNS.items()
    }
    texts["result"] = texts["result"].encode("ascii", "replace").decode()
    return {"audit_id": audit_id, "at": int(audit_id.partition("-")[0]), **texts}


async def _insert(database: Database, rows: Sequence[Mapping[str, Any]]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await database.transaction(lambda connection: _insert_missing(connection, rows))
            return
        except IntegrityError:  # another process moved some of them at the same time: now they are found
            if attempt == ATTEMPTS:
                raise


async def _insert_missing(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert what an earlier try, which may have ended before it could say so, has not."""
    ids = [row["audit_id"] for row in rows]
    present = set(
        await connection.scalars(select(audit_logs.c.audit_id).where(audit_logs.c.audit_id.in_(ids)))
    )
    missing = [row for row in rows if row["audit_id"] not in present]
    if missing:
        await connection.execute(insert(audit_logs), missing)


def _found(*, audit_id: str, at: int, **texts: str) -> Row:
    return Row(at_ms=at, **texts)
