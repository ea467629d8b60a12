"""The noun "key": which keys encrypt what is stored, and which of them is current.

SQL holds the keys' ids and no key: a key is derived from the master secret by its id, which every ciphertext
names. So nothing that was ever encrypted needs this ring to be read; it says which key is to be used, and
whether a process has the master secret with which this database was begun.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.secrets import Secrets
from storage.database import Database
from storage.errors import StoreAway
from storage.servers import now_ms
from storage.tables import encryption_keys, users

FOLLOW_S = 2.0
"""Between two looks at which key is current."""

FOLLOWED_WITHIN_S = 5.0
"""After this time every process that reaches the database encrypts with a new key: FOLLOW_S, the time limit
of a read from the database (1.5 s), and a little."""

FIRST_BY = "lobbyd"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


class OtherMasterSecret(Exception):
    """The database was begun with another master secret than the one that this process has."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key by its id. `created_at` is in ms since the epoch; one of the keys is the current one."""

    key_id: str
    created_at: int
    created_by: str
    is_current: bool


class KeyRing:
    """The keys of one system, and what makes this process's `secrets` use the current one.

    Every method raises StoreAway when the database is away.
    """

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._encryption = secrets.encryption

    async def open(self) -> None:
        """Begin the ring where there is none, and use its current key. Raises OtherMasterSecret."""
        if not await self.keys():
            self._refuse_other(await self._database.read(_any_key_in_use))
            await self._add(self._encryption.first_id, FIRST_BY)
        await self.follow()

    async def run(self) -> None:
        """Go on using whichever key is current. Runs as a side task for as long as the process lives."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                if await self.follow():
                    log.info("encrypts with another key", key=self._encryption.current_id)
            except StoreAway as error:
                log.warning("cannot see which key is current", cause=str(error))

    async def follow(self) -> bool:
        """Use the current key from now on. Answers whether it is another one. Raises OtherMasterSecret."""
        current = (await self.keys())[-1].key_id
        if current == self._encryption.current_id:
            return False
        self._refuse_other(current)
        self._encryption.use(current)
        return True

    async def keys(self) -> list[Key]:
        """Every key that was ever current, oldest first; the last is the current one."""

        async def query(connection: AsyncConnection) -> list[tuple[str, int, str]]:
            columns = (encryption_keys.c.key_id, encryption_keys.c.created_at, encryption_keys.c.created_by)
            rows = await connection.execute(select(*columns).order_by(encryption_keys.c.number))
            return [tuple(row) for row in rows]

        rows = await self._database.read(query)
        return [Key(*row, is_current=number == len(rows)) for number, row in enumerate(rows, start=1)]

    async def rotate(self, operator: str) -> str:
        """Make a new key the current one, for all processes within FOLLOWED_WITHIN_S. Answers its id.

        Raises OtherMasterSecret, before anything is changed.
        """
        await self.open()
        key_id = self._encryption.new_id()
        await self._add(key_id, operator)
        await self.follow()
        return key_id

    def _refuse_other(self, key_id: str | None) -> None:
        if key_id is not None and not self._encryption.is_ours(key_id):
            raise OtherMasterSecret(
                "this database was begun with another master secret; give this process that one (auth.secret)"
            )

    async def _add(self, key_id: str, created_by: str) -> None:
        row = {"key_id": key_id, "created_at": now_ms(), "created_by": created_by[:64]}

        async def put(connection: AsyncConnection) -> None:
            await connection.execute(insert(encryption_keys).values(row))

        with suppress(IntegrityError):  # another process has begun the ring at the same moment
            await self._database.transaction(put)


async def _any_key_in_use(connection: AsyncConnection) -> str | None:
    """The id of a key that encrypts something, for a database that is older than its ring."""
    email: str | None = await connection.scalar(select(users.c.email).limit(1))
    return None if email is None else email.split(".")[1]
