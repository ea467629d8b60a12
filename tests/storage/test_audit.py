"""The audit log: one line an entry, whatever whoever is called, and all of it in SQL, once."""

import asyncio
import re
from datetime import datetime
from typing import Any

import pytest
import structlog
from hypothesis import given, strategies as st
from redis.asyncio import Redis
from sqlalchemy import func, select

from storage import keys
from storage.audit import (
    BATCH,
    Arrears,
    Audit,
    AuditFull,
    Entry,
    Row,
    Search,
    WhenFull,
    as_field,
    search,
    thin,
)
from storage.connections import connect
from storage.database import Database
from storage.errors import StoreAway
from storage.escaping import escaped
from storage.migrations import migrate
from storage.tables import audit_logs
from workers.login.auditing import Auditing

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(\|[^|]+){5}\Z")
JOIN = Entry("anna", "queue:join", "queue:login", "ALLOWED", "policy123", "because")

FORGED = "x|y\n2024-01-01T00:00:00Z|root|all|all|ALLOWED|p\r\u2028\x1b[31m{}%"


@pytest.fixture
def database_url(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture
def redis_url(pair: tuple[str, str]) -> str:
    return pair[1]


async def drain(redis: Redis, database: Database) -> None:
    while await Audit(redis).drain(database):
        pass


async def count(database: Database) -> int:
    query = select(func.count()).select_from(audit_logs)
    found: Any = await database.read(lambda connection: connection.scalar(query))
    return int(found)


@given(st.text(), st.text())
def test_escaped_texts_are_one_field_and_can_be_told_apart(one: str, other: str) -> None:
    for text in (one, other):
        assert escaped(text, "|").isprintable()
        assert "|" not in escaped(text, "|")
        assert len(escaped(text, "|").splitlines()) <= 1
    assert (escaped(one, "|") == escaped(other, "|")) is (one == other)


def test_what_is_harmless_stays_as_it_is() -> None:
    assert as_field("queue:join") == "queue:join"
    assert as_field("보라 {x}") == "보라 {x}"
    assert as_field("a|b\n%") == "a%7Cb%0A%25"
    assert as_field("") == "?"
    assert as_field("a" * 200) == "a" * 127 + "…"


async def test_a_line_has_the_fields_that_programs_read(redis: Redis) -> None:
    await Audit(redis).append([JOIN])
    (line,) = await Audit(redis).tail(10)
    assert LINE.match(line)
    assert line.endswith("Z|anna|queue:join|queue:login|ALLOWED|policy123")
    seconds, _ = await redis.time()
    at = await redis.execute_command("LINDEX", keys.AUDIT_LOGS, 0)
    assert abs(_seconds(at.decode()) - int(seconds)) <= 60


def _seconds(line: str) -> float:
    return datetime.fromisoformat(line.partition("|")[0]).timestamp()


@pytest.mark.parametrize(
    "texts",
    [
        (FORGED, "a", "b"),
        ("anna", FORGED, "b"),
        ("anna", "a", FORGED),
        (FORGED * 50, FORGED * 50, FORGED * 50),
    ],
)
async def test_no_text_forges_a_line(redis: Redis, sqlite_url: str, texts: tuple[str, str, str]) -> None:
    await migrate(sqlite_url)
    database = Database(sqlite_url)
    await Audit(redis).append([Entry(*texts, "DENIED", "-", FORGED * 50)])
    (line,) = await Audit(redis).tail(10)
    assert LINE.match(line)
    assert line.isprintable()
    assert line.endswith("|DENIED|-")
    await drain(redis, database)
    (row,) = await search(database, Search(), 10)
    assert line.endswith(f"|{row.who}|{row.action}|{row.resource}|{row.result}|{row.policy}")
    assert row.reason.isprintable()
    await database.close()


async def test_the_list_is_bounded_and_sql_has_all(redis: Redis, database: Database) -> None:
    await Audit(redis).append([JOIN] * (BATCH + 1))
    await redis.rpush(keys.AUDIT_LOGS, *["old"] * 10_000)
    await Audit(redis).append([JOIN])
    assert await redis.llen(keys.AUDIT_LOGS) == 10_000
    await drain(redis, database)
    assert await count(database) == BATCH + 2
    assert await redis.xlen(keys.AUDIT_PENDING) == 0


async def test_a_drain_that_was_cut_off_doubles_nothing(redis: Redis, database: Database) -> None:
    await Audit(redis).append([JOIN] * 3)
    waiting: Any = await redis.xrange(keys.AUDIT_PENDING)
    await drain(redis, database)
    await redis.delete(keys.AUDIT_PENDING)
    for entry_id, fields in waiting:  # as if it had been killed before it could say that it was done
        await redis.xadd(keys.AUDIT_PENDING, fields, id=entry_id)
    await Audit(redis).append([JOIN])
    await drain(redis, database)
    assert await count(database) == 4


async def test_drains_at_once_lose_and_double_nothing(redis: Redis, database: Database) -> None:
    await Audit(redis).append([JOIN] * 1_200)
    await asyncio.gather(*(drain(redis, database) for _ in range(4)))
    await drain(redis, database)
    assert await count(database) == 1_200


async def test_what_somebody_else_put_there_ends_nobody(redis: Redis, database: Database) -> None:
    await redis.xadd(keys.AUDIT_PENDING, {"who": "x" * 9_999, "strange": b"\xff", "result": b"\xff" * 99})
    await Audit(redis).append([JOIN])
    await drain(redis, database)
    assert [row.who[:4] for row in await search(database, Search(), 10)] == ["xxxx", "anna"]


async def put(redis: Redis, database: Database, *ids: str) -> None:
    """Entries of these times."""
    for each in ids:
        await redis.xadd(keys.AUDIT_PENDING, {"who": each, "action": "a", "result": "ALLOWED"}, id=each)
    await drain(redis, database)


async def test_what_is_old_ends_in_sql_a_batch_at_a_time(redis: Redis, database: Database) -> None:
    old = [f"1700000000000-{number}" for number in range(BATCH + 2)]
    await put(redis, database, *old, "1700000000999-7", "1700000001000-0", "1700000001001-0")
    assert await thin(database, 1_700_000_000_000) == 0
    assert [await thin(database, 1_700_000_001_000) for _ in range(3)] == [BATCH, 3, 0]
    left = [row.who for row in await search(database, Search(), 10)]
    assert left == ["1700000001000-0", "1700000001001-0"]


async def test_two_that_end_what_is_old_at_once_do_no_harm(redis: Redis, database: Database) -> None:
    await put(redis, database, *(f"1700000000000-{number}" for number in range(300)), "1800000000000-0")
    await asyncio.gather(*(thin(database, 1_750_000_000_000) for _ in range(4)))
    assert await count(database) == 1


@pytest.mark.parametrize(("keep_s", "left"), [(86_400.0, ["new", "newer"]), (0.0, ["old", "new", "newer"])])
async def test_the_worker_that_moves_the_log_ends_what_is_old(
    redis: Redis, database: Database, keep_s: float, left: list[str]
) -> None:
    await redis.xadd(keys.AUDIT_PENDING, {"who": "old", "result": "ALLOWED"}, id="1700000000000-0")
    await Audit(redis).append([Entry("new", "a", "b", "ALLOWED", "-")])
    running = asyncio.create_task(Auditing(Audit(redis), database, "boot", keep_s).run())
    async with asyncio.timeout(20):
        while "new" not in (await whose(database)):
            await asyncio.sleep(0.02)
        await Audit(redis).append([Entry("newer", "a", "b", "ALLOWED", "-")])
        while "newer" not in (await whose(database)):
            await asyncio.sleep(0.02)
    assert await whose(database) == left
    running.cancel()


async def whose(database: Database) -> list[str]:
    return [row.who for row in await search(database, Search(), 10)]


async def test_one_at_a_time_leads(redis: Redis) -> None:
    audit = Audit(redis)
    assert [await audit.lead(boot, 60) for boot in ("a", "b", "a")] == [True, False, True]
    await redis.delete(keys.AUDIT_LEASE)
    assert await audit.lead("b", 60)


async def test_what_may_be_refused_is_refused_when_too_much_waits(redis: Redis) -> None:
    audit = Audit(redis)
    await audit.append([JOIN, JOIN], WhenFull.REFUSE, most_pending=2)
    with pytest.raises(AuditFull):
        await audit.append([JOIN], WhenFull.REFUSE, most_pending=2)
    await audit.append([JOIN], WhenFull.WRITE, most_pending=2)
    assert await redis.xlen(keys.AUDIT_PENDING) == await redis.llen(keys.AUDIT_LOGS) == 3
    assert await audit.arrears() == Arrears(pending=3, lost=0)


async def test_what_goes_on_when_too_much_waits_is_shown_and_counted(redis: Redis) -> None:
    audit = Audit(redis)
    for _ in range(2):
        await audit.append([JOIN, JOIN], WhenFull.COUNT, most_pending=3)
    assert await audit.arrears() == Arrears(pending=3, lost=1)
    assert await redis.llen(keys.AUDIT_LOGS) == 4


async def test_the_loss_is_told_once(redis: Redis, database: Database) -> None:
    audit, found = Audit(redis), Auditing(Audit(redis), database, "boot", 0.0)
    await audit.append([JOIN] * 5, WhenFull.COUNT, most_pending=2)
    with structlog.testing.capture_logs() as told:
        for _ in range(3):
            await found._look()
        await audit.append([JOIN] * 5, WhenFull.COUNT, most_pending=4)
        await found._look()
    assert [(line["lost"], line["ever"]) for line in told] == [(3, 3), (1, 4)]
    served = {metric.name: metric.samples[0].value for metric in found.figures()}
    assert served == {"lobbyd_audit_pending": 4, "lobbyd_audit_lost": 4}


async def test_without_redis_nothing_is_taken_for_written(own_redis: Any) -> None:
    async with connect(own_redis.url) as redis:
        own_redis.stop()
        with pytest.raises(StoreAway):
            await Audit(redis).append([JOIN])


async def test_what_is_searched_for_is_found(redis: Redis, database: Database) -> None:
    entries = [
        Entry("anna", "queue:join", "queue:login", "ALLOWED", "p"),
        Entry("anna", "role:bear", "role:ADMIN", "DENIED", "-"),
        Entry("kim", "admission:pause", "queue:portal", "ALLOWED", "lobbyctl"),
        Entry("an%", "queue_join", "queue:a|b", "DENIED", "-"),
    ]
    await Audit(redis).append(entries)
    await drain(redis, database)

    async def found(**wanted: Any) -> list[str]:
        return [row.action for row in await search(database, Search(**wanted), 10)]

    assert await found() == [entry.action for entry in entries]
    assert await found(who="anna") == ["queue:join", "role:bear"]
    assert await found(who="an%") == ["queue_join"]
    assert await found(action="queue:*") == ["queue:join"]
    assert await found(resource="queue:a|b") == ["queue_join"]
    assert await found(result="DENIED", who="anna") == ["role:bear"]
    assert await found(since_ms=9_999_999_999_999) == []
    assert await found(since_ms=0, who="kim") == ["admission:pause"]
    newest: list[Row] = await search(database, Search(), 1)
    assert [row.who for row in newest] == ["an%25"]
