"""Where files lie: a folder, or what obstore reaches by URL (S3 and its like, Google, Azure).

Names in it are made of ids alone, never of what a user calls a file. Nothing is held whole in memory.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import obstore
from obstore import Bytes
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from storage.errors import StoreAway

READ_BYTES = 4_194_304
"""How much of an object is read at once."""

HEAD_BYTES = 8192
WRITE_BYTES = 5_242_880
WRITES = 2
"""Parts of an object on their way at once, each of so many bytes: S3 takes 10,000, of 5 MiB or more."""

LINK_S = 3600.0


class Writer(Protocol):
    """An object that comes to be when it is closed."""

    async def write(self, chunk: bytes | Bytes) -> object:
        """Add bytes."""
        ...


class Objects:
    """The store of files. Raises StoreAway; FileNotFoundError for a name that is not there."""

    def __init__(self, url: str) -> None:
        """`url` is a folder, or a URL such as `s3://bucket/prefix`. Raises ValueError for anything else."""
        self._store: ObjectStore
        try:
            if "://" in url:
                self._store = from_url(url)
            else:
                self._store = LocalStore(Path(url).absolute(), mkdir=True, automatic_cleanup=True)
        except (BaseError, OSError) as error:
            raise ValueError(f"{error}".partition("\n")[0]) from None

    async def put(self, name: str, content: bytes) -> None:
        """Make an object, or replace it."""
        with _away():
            await obstore.put_async(self._store, name, content)

    async def names(self, prefix: str) -> list[tuple[str, int]]:
        """The objects whose names begin with the folder `prefix`: name and size in bytes, in order."""
        with _away():
            found = await obstore.list(self._store, prefix).collect_async()
        return sorted((each["path"], each["size"]) for each in found)

    async def get(self, name: str) -> Bytes:
        """The content of an object that is small."""
        with _away():
            answer = await obstore.get_async(self._store, name)
            return await answer.bytes_async()

    async def read(self, name: str) -> AsyncIterator[Bytes]:
        """An object's content, in pieces."""
        with _away():
            size = (await obstore.head_async(self._store, name))["size"]
            # By ranges, since obstore streams a local file by 8 KiB, which takes thirty times as long.
            for start in range(0, size, READ_BYTES):
                length = min(READ_BYTES, size - start)
                yield await obstore.get_range_async(self._store, name, start=start, length=length)

    @asynccontextmanager
    async def writing(self, name: str) -> AsyncIterator[Writer]:
        """While entered, an object is written; it is there once this is left, and not after an error."""
        with _away():
            async with obstore.open_writer_async(
                self._store, name, buffer_size=WRITE_BYTES, max_concurrency=WRITES
            ) as writer:
                yield writer

    @property
    def has_links(self) -> bool:
        """Whether objects can be fetched by a URL (`link`)."""
        return isinstance(self._store, (S3Store, GCSStore, AzureStore))

    async def link(self, name: str) -> str:
        """A URL by which whoever has it can fetch an object for LINK_S.

        Raises ValueError where objects have none.
        """
        if not isinstance(self._store, (S3Store, GCSStore, AzureStore)):
            raise ValueError("Files lie in a folder here, which has no URLs.")
        with _away():
            return await obstore.sign_async(self._store, "GET", name, timedelta(seconds=LINK_S))

    async def fetch(self, name: str, path: Path) -> bytes:
        """Make a file of an object. Answers how it begins."""
        head = b""
        with path.open("wb") as target:
            async for piece in self.read(name):
                head = head or bytes(memoryview(piece)[:HEAD_BYTES])
                await asyncio.to_thread(target.write, piece)
        return head

    async def put_file(self, name: str, path: Path) -> str:
        """Make an object of a file. Answers its SHA-256."""
        digest = hashlib.sha256()
        with path.open("rb") as source:
            async with self.writing(name) as writer:
                while piece := await asyncio.to_thread(source.read, READ_BYTES):
                    digest.update(piece)
                    await writer.write(piece)
        return digest.hexdigest()

    async def delete(self, names: Sequence[str]) -> None:
        """Remove objects, those that are there."""
        try:
            with _away():
                await obstore.delete_async(self._store, names)
        except FileNotFoundError:  # where one is gone already, the others may not have been looked at
            for name in names:
                with _away(), suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, name)


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        raise StoreAway(f"The files' store does not answer: {error}".partition("\n")[0]) from error
