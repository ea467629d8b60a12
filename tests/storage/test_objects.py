"""Where files lie: a folder, or an object store that speaks S3."""

import asyncio
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import StoreAway
from storage.objects import WRITE_BYTES, Objects
from tests.object_store import BUCKET, Bucket, run_bucket
from tests.servers import HOST, free_port


@pytest.fixture(scope="module")
def bucket(servers_folder: Path) -> Iterator[Bucket]:
    yield from run_bucket(servers_folder / f"moto-{uuid.uuid4().hex}.log")


@pytest.fixture
def s3(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """The bucket, with a prefix of the test's own."""
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    return Objects(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "s3":
        found: Objects = request.getfixturevalue("s3")
        return found
    return Objects(str(tmp_path / "files"))


async def content(objects: Objects, name: str) -> bytes:
    return b"".join([bytes(piece) async for piece in objects.read(name)])


LARGE = bytes(range(256)) * (3 * WRITE_BYTES // 256)


async def test_what_is_put_is_there_until_it_is_deleted(objects: Objects) -> None:
    for number in range(3):
        await objects.put(f"uploads/a/{number}", b"x" * number)
    await objects.put("uploads/ab/0", b"another's")

    assert await objects.names("uploads/a") == [(f"uploads/a/{number}", number) for number in range(3)]
    assert bytes(await objects.get("uploads/a/2")) == b"xx"
    await objects.delete(["uploads/a/0", "uploads/a/none", "uploads/a/1", "uploads/a/2"])
    await objects.delete([])
    assert await objects.names("uploads/a") == []
    assert await objects.names("uploads/ab") == [("uploads/ab/0", 9)]


async def test_what_is_large_is_written_and_read_in_pieces(objects: Objects, tmp_path: Path) -> None:
    async with objects.writing("files/a") as writer:
        for start in range(0, len(LARGE), 1_000_000):
            await writer.write(LARGE[start : start + 1_000_000])

    assert await content(objects, "files/a") == LARGE
    assert await objects.fetch("files/a", tmp_path / "a") == LARGE[:8192]
    assert await objects.put_file("files/b", tmp_path / "a") == await objects.put_file(
        "files/c", tmp_path / "a"
    )
    assert await content(objects, "files/b") == LARGE


@pytest.mark.parametrize("size", [10, len(LARGE)], ids=["small", "in parts"])
async def test_what_fails_on_the_way_leaves_nothing(objects: Objects, size: int) -> None:
    async def write() -> None:
        async with objects.writing("files/a") as writer:
            await writer.write(LARGE[:size])
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        await write()

    assert await objects.names("files") == []


async def test_what_fails_on_the_way_leaves_no_parts_in_an_object_store(s3: Objects, bucket: Bucket) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with s3.writing("files/a") as writer:
            await writer.write(LARGE)
            reached.set()
            await never.wait()

    writing = asyncio.create_task(write())
    await reached.wait()
    while not bucket.unfinished:
        await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert bucket.unfinished == 0
    assert await s3.names("files") == []


async def test_an_object_store_gives_urls(s3: Objects) -> None:
    await s3.put("files/인사", b"hello")
    assert s3.has_links

    with urllib.request.urlopen(await s3.link("files/인사"), timeout=10) as answer:
        assert answer.read() == b"hello"


async def test_a_folder_has_no_urls(tmp_path: Path) -> None:
    objects = Objects(str(tmp_path))
    assert not objects.has_links
    with pytest.raises(ValueError, match="no URLs"):
        await objects.link("files/a")


async def test_an_object_store_that_is_away_says_so(s3: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://{HOST}:{free_port()}")
    away = Objects(f"s3://{BUCKET}/x")
    with pytest.raises(StoreAway):
        async with asyncio.timeout(30):
            await away.put("a", b"x")
