"""The ring of keys, and bringing what is stored to the current one, while other processes go on."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.encryption import prefix
from runtime.sealing import Undecipherable
from runtime.secrets import Secrets
from storage import reencryption
from storage.database import Database
from storage.keyring import FIRST_BY, KeyRing, OtherMasterSecret
from storage.reencryption import Progress, count, reencrypt
from storage.tables import users as users_table
from storage.users import NewUser, Users, email_context

MASTER = b"a master secret of tests and tests alone"


def secrets() -> Secrets:
    """Those of another process."""
    return Secrets(MASTER)


async def ring(database: Database, own: Secrets) -> KeyRing:
    made = KeyRing(database, own)
    await made.open()
    return made


async def test_a_ring_begins_with_the_first_key_once_for_all(database: Database) -> None:
    rings = await asyncio.gather(*(ring(database, secrets()) for _ in range(5)))
    for one in rings:
        (key,) = await one.keys()
        assert (key.key_id, key.created_by, key.is_current) == (
            secrets().encryption.first_id,
            FIRST_BY,
            True,
        )


async def test_every_process_follows_to_the_new_key_and_reads_the_old(database: Database) -> None:
    one, other = secrets(), secrets()
    first, second = await ring(database, one), await ring(database, other)
    old = other.encryption.encrypt("a@b.c", "here")

    key_id = await first.rotate("kim")

    assert one.encryption.current_id == key_id
    assert one.encryption.decrypt(old, "here") == "a@b.c"
    # The other one reads what it has not heard of yet, then follows.
    assert other.encryption.decrypt(one.encryption.encrypt("d@e.f", "here"), "here") == "d@e.f"
    assert not other.encryption.encrypt("a@b.c", "here").startswith(prefix(key_id))
    assert await second.follow()
    assert other.encryption.encrypt("a@b.c", "here").startswith(prefix(key_id))
    assert not await second.follow()
    assert [(key.created_by, key.is_current) for key in await second.keys()] == [
        (FIRST_BY, False),
        ("kim", True),
    ]


async def test_a_process_that_starts_uses_the_current_key(database: Database) -> None:
    key_id = await (await ring(database, secrets())).rotate("kim")
    late = secrets()
    await ring(database, late)
    assert late.encryption.current_id == key_id


async def test_operators_who_rotate_at_once_leave_one_current_key(database: Database) -> None:
    rings = [await ring(database, secrets()) for _ in range(4)]
    made = await asyncio.gather(*(one.rotate("kim") for one in rings))
    keys = await rings[0].keys()
    assert {key.key_id for key in keys} == {*made, secrets().encryption.first_id}
    assert [key.is_current for key in keys] == [False] * 4 + [True]


@pytest.mark.parametrize("rotated", [False, True])
async def test_another_master_secret_is_told_so_and_changes_nothing(
    database: Database, rotated: bool
) -> None:
    one = await ring(database, secrets())
    if rotated:
        await one.rotate("kim")
    before = await one.keys()
    stranger = KeyRing(database, Secrets(MASTER[::-1]))
    for attempt in (stranger.open, lambda: stranger.rotate("lee")):
        with pytest.raises(OtherMasterSecret, match="another master secret"):
            await attempt()
    assert await one.keys() == before


# Encrypting again.


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """One kind of Redis: nothing here depends on it."""
    return valkey_url


def new(number: int) -> NewUser:
    name = f"user{number:03}"
    return NewUser(name, f"{name}@example.com", name, "hash", name, 1)


async def stored(database: Database) -> dict[str, str]:
    async def query(connection: AsyncConnection) -> dict[str, str]:
        rows = await connection.execute(select(users_table.c.user_id, users_table.c.email))
        return {row[0]: row[1] for row in rows}

    return await database.read(query)


async def change(database: Database, user_id: str, email: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        statement = update(users_table).where(users_table.c.user_id == user_id).values(email=email)
        await connection.execute(statement)

    await database.transaction(work)


@pytest.fixture
async def people(database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Seven accounts, encrypted with the first key; batches are of three. Their addresses by user id."""
    monkeypatch.setattr(reencryption, "BATCH", 3)
    users = Users(database, redis, secrets())
    for number in range(7):
        await users.add(new(number))
    return {each.user_id: each.email for each in map(new, range(7))}


async def progress(database: Database, own: Secrets) -> list[Progress]:
    return [each async for each in reencrypt(database, own.encryption)]


def readable(rows: dict[str, str]) -> dict[str, str]:
    """What a process reads that has not heard of any rotation."""
    return {
        user_id: secrets().encryption.decrypt(email, email_context(user_id))
        for user_id, email in rows.items()
    }


async def test_all_that_is_stored_comes_to_one_key(database: Database, people: dict[str, str]) -> None:
    own = secrets()
    key_id = await (await ring(database, own)).rotate("kim")
    assert await count(database, [own.encryption.first_id, key_id]) == {
        own.encryption.first_id: 7,
        key_id: 0,
    }

    assert await progress(database, own) == [Progress(3, 3, ()), Progress(3, 3, ()), Progress(1, 1, ())]

    rows = await stored(database)
    assert all(email.startswith(prefix(key_id)) for email in rows.values())
    assert readable(rows) == people
    assert await count(database, [own.encryption.first_id, key_id]) == {
        own.encryption.first_id: 0,
        key_id: 7,
    }
    assert [each.changed for each in await progress(database, own)] == [0, 0, 0]
    assert await stored(database) == rows


async def test_a_pass_that_was_cut_short_is_finished_by_another(
    database: Database, people: dict[str, str]
) -> None:
    own = secrets()
    await (await ring(database, own)).rotate("kim")
    async for _ in reencrypt(database, own.encryption):
        break
    assert sum([each.changed for each in await progress(database, own)]) == 4
    assert readable(await stored(database)) == people


async def test_what_changes_meanwhile_is_not_undone(
    database: Database, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, meanwhile = secrets(), secrets()
    await (await ring(database, own)).rotate("kim")
    newer = meanwhile.encryption.encrypt("newer@example.com", email_context("user001"))
    transaction = database.transaction

    async def late(work: object) -> object:
        monkeypatch.setattr(database, "transaction", transaction)
        await change(database, "user001", newer)  # between the pass's read and its write
        return await transaction(work)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "transaction", late)
    assert (await progress(database, own))[0] == Progress(3, 2, ())

    assert readable(await stored(database)) == people | {"user001": "newer@example.com"}
    assert sum([each.changed for each in await progress(database, own)]) == 1


async def test_what_cannot_be_deciphered_is_named_and_left(
    database: Database, people: dict[str, str]
) -> None:
    own = secrets()
    await (await ring(database, own)).rotate("kim")
    rows = await stored(database)
    await change(database, "user002", rows["user003"])  # somebody else's
    await change(database, "user004", "v1.nonsense.AAAA")

    passed = await progress(database, own)

    assert [each.undecipherable for each in passed] == [("user002",), ("user004",), ()]
    left = await stored(database)
    assert (left["user002"], left["user004"]) == (rows["user003"], "v1.nonsense.AAAA")


async def test_accounts_that_are_older_than_the_ring_tell_their_master_secret(
    database: Database, people: dict[str, str]
) -> None:
    """After an upgrade the first worker may be the one with the wrong secret."""
    stranger = KeyRing(database, Secrets(MASTER[::-1]))
    with pytest.raises(OtherMasterSecret):
        await stranger.open()
    assert await stranger.keys() == []
    assert len(await (await ring(database, secrets())).keys()) == 1


async def test_an_account_whose_address_is_another_s_is_not_shown(
    database: Database, redis: Redis, people: dict[str, str]
) -> None:
    """Who can write to the database moves a ciphertext from one row to another."""
    rows = await stored(database)
    await change(database, "user001", rows["user002"])
    await redis.flushall()
    with pytest.raises(Undecipherable):
        await Users(database, redis, secrets()).get("user001")


async def test_an_empty_database_needs_nothing(database: Database) -> None:
    own = secrets()
    await (await ring(database, own)).rotate("kim")
    assert await progress(database, own) == []
    async with asyncio.timeout(60):
        assert await count(database, []) == {}
