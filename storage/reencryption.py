"""Bringing every encrypted field in SQL to the current key, while everything runs.

Rows are taken in the order of their keys, a batch a transaction, and each is changed only if it still holds
what was read. What was done stays done, so a pass that was cut short is simply begun again. Caches in Redis
hold copies of these fields; they expire within an hour, and can be read until then and after.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.encryption import Encryption, prefix
from runtime.sealing import Undecipherable
from storage.database import Database
from storage.tables import users
from storage.users import email_context

BATCH = 500
"""Rows of a transaction: it takes some ms, in which nobody else can change them."""


@dataclass(frozen=True)
class EncryptedField:
    """A column that holds ciphertexts: its table, that one's primary key, and what each is bound to."""

    table: Table
    key: str
    column: str
    context: Callable[[str], str]


FIELDS = (EncryptedField(users, "user_id", "email", email_context),)
"""Every encrypted column. Who adds one to `storage/tables.py` names it here."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a batch came to: rows looked at, rows changed, and the keys of those that cannot be deciphered."""

    seen: int
    changed: int
    undecipherable: tuple[str, ...]


async def reencrypt(database: Database, encryption: Encryption) -> AsyncIterator[Progress]:
    """Encrypt every field of FIELDS with the current key; tells what each batch came to. Raises StoreAway."""
    for field in FIELDS:
        last = ""
        while True:
            rows = await database.read(_after(field, last))
            if not rows:
                break
            *_, last = rows
            changes, undecipherable = _changes(field, rows, encryption)
            changed = await database.transaction(_changing(field, changes)) if changes else 0
            yield Progress(len(rows), changed, undecipherable)


async def count(database: Database, key_ids: Iterable[str]) -> dict[str, int]:
    """How many stored fields were encrypted with each key. Raises StoreAway."""
    counts = dict.fromkeys(key_ids, 0)
    for field in FIELDS if counts else ():
        found = await database.read(_counting(field, list(counts)))
        for key_id, number in found.items():
            counts[key_id] += number
    return counts


def _after(field: EncryptedField, last: str) -> Callable[[AsyncConnection], Any]:
    key, column = field.table.c[field.key], field.table.c[field.column]

    async def query(connection: AsyncConnection) -> dict[str, str]:
        rows = await connection.execute(select(key, column).where(key > last).order_by(key).limit(BATCH))
        return {row[0]: row[1] for row in rows}

    return query


def _changes(
    field: EncryptedField, rows: Mapping[str, str], encryption: Encryption
) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    changes, undecipherable = [], []
    for key, old in rows.items():
        if old.startswith(prefix(encryption.current_id)):
            continue
        context = field.context(key)
        try:
            new = encryption.encrypt(encryption.decrypt(old, context), context)
        except Undecipherable:
            undecipherable.append(key)
        else:
            changes.append({"of": key, "old": old, "new": new})
    return changes, tuple(undecipherable)


def _changing(field: EncryptedField, changes: list[dict[str, str]]) -> Callable[[AsyncConnection], Any]:
    key, column = field.table.c[field.key], field.table.c[field.column]
    change = (
        update(field.table)
        .where(key == bindparam("of"), column == bindparam("old"))
        .values({field.column: bindparam("new")})
    )

    async def work(connection: AsyncConnection) -> int:
        return sum([(await connection.execute(change, each)).rowcount for each in changes])

    return work


def _counting(field: EncryptedField, key_ids: list[str]) -> Callable[[AsyncConnection], Any]:
    column = field.table.c[field.column]
    counts = [func.count(case((column.like(f"{prefix(key_id)}%"), 1))) for key_id in key_ids]

    async def query(connection: AsyncConnection) -> dict[str, int]:
        row = (await connection.execute(select(*counts).select_from(field.table))).one()
        return dict(zip(key_ids, row, strict=True))

    return query
