"""The noun "file": what a user has brought, or what was made for them. SQL lists them, `Objects` has them.

An upload is a row without `stored_at` and parts in the store, each named by its offset; a file is one object.
The row is written first and removed last, so nothing lies in the store that no row knows of. What an operator
removes becomes an upload that nobody finished, since long ago: the workers, who reach the store, remove that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.objects import Objects
from storage.servers import now_ms
from storage.tables import portal_files, users

CLEANED_AT_ONCE = 100

GIVEN_UP = 0
"""The `created_at` of what an operator has removed."""


class QuotaExceeded(Exception):
    """The user's files would take more room than they may: nothing was reserved."""


@dataclass(frozen=True, slots=True)
class File:
    """A file. `stored_at`, `sha256` and `content_type` are None while it is uploaded.

    Times are ms since the epoch.
    """

    file_id: str
    user_id: str
    file_name: str
    size_bytes: int
    sha256: str | None
    content_type: str | None
    stored_at: int | None
    created_at: int

    @property
    def object_name(self) -> str:
        """Where it lies in the store."""
        return f"files/{self.user_id}/{self.file_id}"


@dataclass(frozen=True, slots=True)
class Upload:
    """How much an upload is to bring, and how much has come without a gap."""

    size_bytes: int
    come_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self.come_bytes >= self.size_bytes


def parts_folder(file_id: str) -> str:
    """Where the parts of an upload lie."""
    return f"uploads/{file_id}"


def part_name(file_id: str, offset: int) -> str:
    """Where the part that begins at `offset` lies; names are in the order of the offsets."""
    return f"{parts_folder(file_id)}/{offset:015d}"


class Files:
    """The files of one system. Raises StoreAway."""

    def __init__(self, database: Database, objects: Objects, quota_bytes: int) -> None:
        self._database = database
        self._objects = objects
        self._quota_bytes = quota_bytes

    async def reserve(self, file_id: str, user_id: str, file_name: str, size_bytes: int) -> None:
        """Take room for a file to come; harmless when it is asked for again. Raises QuotaExceeded."""
        row = {
            "file_id": file_id,
            "user_id": user_id,
            "file_name": file_name,
            "size_bytes": size_bytes,
            "created_at": now_ms(),
        }

        async def work(connection: AsyncConnection) -> None:
            # One at a time for each user: two that come together must not both find the last room free.
            await connection.execute(
                select(users.c.user_id).where(users.c.user_id == user_id).with_for_update()
            )
            known = await connection.scalar(
                select(portal_files.c.file_id).where(portal_files.c.file_id == file_id)
            )
            if known is not None:
                return
            taken = await connection.scalar(
                select(func.sum(portal_files.c.size_bytes)).where(portal_files.c.user_id == user_id)
            )
            if int(taken or 0) + size_bytes > self._quota_bytes:
                raise QuotaExceeded
            await connection.execute(insert(portal_files).values(row))

        await self._database.transaction(work)

    async def get(self, file_id: str) -> File | None:
        """A file or an upload; None when there is none of this id."""

        async def query(connection: AsyncConnection) -> File | None:
            found = await connection.execute(select(*_COLUMNS).where(portal_files.c.file_id == file_id))
            row = found.one_or_none()
            return None if row is None else File(**row._asdict())

        return await self._database.read(query)

    async def begun(self, file_ids: Sequence[str]) -> dict[str, Upload]:
        """Those of the files whose bytes are still to be put together, and how many have come."""

        async def query(connection: AsyncConnection) -> Sequence[Any]:
            found = select(portal_files.c.file_id, portal_files.c.size_bytes).where(
                portal_files.c.file_id.in_(file_ids), portal_files.c.stored_at.is_(None)
            )
            return (await connection.execute(found)).all()

        rows = await self._database.read(query)
        return {row.file_id: Upload(row.size_bytes, await self._come(row.file_id)) for row in rows}

    async def _come(self, file_id: str) -> int:
        offset = 0
        for name, size in await self._objects.names(parts_folder(file_id)):
            if name != part_name(file_id, offset):
                break
            offset += size
        return offset

    async def stored(self, file_id: str, sha256: str, content_type: str) -> None:
        """Note that a file is whole in the store, unless it was given up meanwhile."""

        async def work(connection: AsyncConnection) -> None:
            values = {"sha256": sha256, "content_type": content_type, "stored_at": now_ms()}
            await connection.execute(
                update(portal_files)
                .where(portal_files.c.file_id == file_id, portal_files.c.created_at != GIVEN_UP)
                .values(values)
            )

        await self._database.transaction(work)

    async def remove(self, file: File) -> None:
        """Remove a file or an upload, its parts, and its room."""
        await self.remove_parts(file.file_id)
        await self._objects.delete([file.object_name])

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(portal_files).where(portal_files.c.file_id == file.file_id))

        await self._database.transaction(work)

    async def remove_parts(self, file_id: str) -> None:
        """Remove the parts of an upload, once the file is whole."""
        await self._objects.delete([name for name, _ in await self._objects.names(parts_folder(file_id))])

    async def unfinished(self, older_than_s: float, after: str) -> Sequence[File]:
        """Uploads that were begun so long ago, by their ids: a batch of those that come after `after`."""
        before_ms = now_ms() - int(older_than_s * 1000)

        async def query(connection: AsyncConnection) -> Sequence[File]:
            found = (
                select(*_COLUMNS)
                .where(
                    portal_files.c.stored_at.is_(None),
                    portal_files.c.created_at < before_ms,
                    portal_files.c.file_id > after,
                )
                .order_by(portal_files.c.file_id)
                .limit(CLEANED_AT_ONCE)
            )
            return [File(**row._asdict()) for row in await connection.execute(found)]

        return await self._database.read(query)


class OwnedFiles:
    """Users' files, as an operator sees and removes them: by the rows alone. Raises StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, user_id: str, most: int, file_ids: Sequence[str] | None = None) -> Sequence[File]:
        """A user's files and uploads, or those of these ids; the newest first."""

        async def query(connection: AsyncConnection) -> Sequence[File]:
            found = (
                select(*_COLUMNS)
                .where(portal_files.c.user_id == user_id, portal_files.c.created_at != GIVEN_UP)
                .order_by(portal_files.c.created_at.desc(), portal_files.c.file_id)
                .limit(most)
            )
            if file_ids is not None:
                found = found.where(portal_files.c.file_id.in_(file_ids))
            return [File(**row._asdict()) for row in await connection.execute(found)]

        return await self._database.read(query)

    async def taken_bytes(self, user_id: str) -> int:
        """The room that a user's files take, with what is given up and not yet removed."""

        async def query(connection: AsyncConnection) -> int:
            asked = select(func.sum(portal_files.c.size_bytes)).where(portal_files.c.user_id == user_id)
            return int(await connection.scalar(asked) or 0)

        return await self._database.read(query)

    async def give_up(self, file_id: str) -> None:
        """Have a file or an upload removed at the next sweep; again, it changes nothing."""

        async def work(connection: AsyncConnection) -> None:
            values = {"stored_at": None, "created_at": GIVEN_UP}
            await connection.execute(
                update(portal_files).where(portal_files.c.file_id == file_id).values(values)
            )

        await self._database.transaction(work)


_COLUMNS = tuple(portal_files.c[name] for name in File.__dataclass_fields__)
