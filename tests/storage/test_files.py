"""What users have stored, and what becomes of it when an operator removes it."""

from pathlib import Path

import pytest

from storage.database import Database
from storage.files import File, Files, OwnedFiles, QuotaExceeded
from storage.objects import Objects

QUOTA_BYTES = 10
LONG_S = 3600.0


@pytest.fixture
async def files(database: Database, tmp_path: Path) -> Files:
    return Files(database, Objects(str(tmp_path / "files")), QUOTA_BYTES)


@pytest.fixture
def owned(database: Database) -> OwnedFiles:
    return OwnedFiles(database)


async def stored(files: Files, file_id: str, size_bytes: int) -> File:
    """A file of bora's that is whole."""
    await files.reserve(file_id, "bora", f"{file_id}.txt", size_bytes)
    await files.stored(file_id, "0" * 64, "text/plain")
    found = await files.get(file_id)
    assert found is not None
    return found


async def names(owned: OwnedFiles, user_id: str = "bora") -> set[str]:
    return {file.file_id for file in await owned.of(user_id, 10)}


async def swept(files: Files) -> list[str]:
    return [file.file_id for file in await files.unfinished(LONG_S, "")]


async def test_files_are_listed_by_user_and_id(files: Files, owned: OwnedFiles) -> None:
    one = await stored(files, "one", 4)
    await files.reserve("two", "bora", "two.txt", 5)
    await files.reserve("other", "chul", "other.txt", 1)
    assert await names(owned) == {"one", "two"}
    assert len(await owned.of("bora", 1)) == 1
    assert await owned.of("bora", 10, ["one", "other", "none"]) == [one]
    assert await owned.taken_bytes("bora") == 9
    assert await owned.taken_bytes("nobody") == 0


async def test_what_is_given_up_is_swept_and_then_its_room_is_free(files: Files, owned: OwnedFiles) -> None:
    await stored(files, "one", 8)
    await files.reserve("two", "bora", "two.txt", 1)
    assert await swept(files) == []
    for _ in range(2):
        await owned.give_up("one")
    assert await names(owned) == {"two"}
    assert await swept(files) == ["one"]
    # Its bytes still lie in the store.
    with pytest.raises(QuotaExceeded):
        await files.reserve("three", "bora", "three.txt", 8)
    for file in await files.unfinished(LONG_S, ""):
        await files.remove(file)
    await files.reserve("three", "bora", "three.txt", 8)
    assert await swept(files) == []


async def test_an_upload_that_is_given_up_does_not_become_a_file(files: Files, owned: OwnedFiles) -> None:
    await files.reserve("one", "bora", "one.txt", 8)
    await owned.give_up("one")
    await files.stored("one", "0" * 64, "text/plain")  # by whoever put it together meanwhile
    assert await names(owned) == set()
    assert await swept(files) == ["one"]
