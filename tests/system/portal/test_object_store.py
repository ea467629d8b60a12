"""Files in an object store: brought in parts, fetched by a URL, and nothing left of what is not to be."""

import asyncio
import hashlib
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import BUCKET, Bucket, run_bucket
from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.portal.asking import CHUNK_BYTES, SUBMIT_FILE, Player, becomes, ended, send, submit, view

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def bucket(servers_folder: Path) -> Iterator[Bucket]:
    yield from run_bucket(servers_folder / f"moto-{uuid.uuid4().hex}.log")


@pytest.fixture(scope="module")
def portal(servers_folder: Path, bucket: Bucket) -> Iterator[Cluster]:
    """A node, a login worker and a portal worker whose files are in the bucket."""
    settings = {"portal.storage_url": f"s3://{BUCKET}/files"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.variables.items():
            patch.setenv(name, value)
        for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
            cluster.start().start_worker("portal")
            yield cluster


async def upload(player: Player, content: bytes, digest: str) -> str:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a.bin", size=len(content), sha256=digest)
    for offset in range(0, len(content), CHUNK_BYTES):
        await send(player, accepted.task_id, content, offset)
    return accepted.task_id


async def test_a_file_is_fetched_by_the_url_in_its_status(player: Player, bucket: Bucket) -> None:
    content = uuid.uuid4().bytes * 1_250_000
    task_id = await upload(player, content, hashlib.sha256(content).hexdigest())
    assert (await ended(player, task_id)).status == "completed"

    url = (await view(player, task_id)).download_url

    assert isinstance(url, str)
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=20) as answer:
        assert answer.read() == content
    assert bucket.unfinished == 0
    assert task_id not in bucket.ask("?prefix=files/uploads/")


async def test_a_file_with_another_hash_leaves_nothing(player: Player, bucket: Bucket) -> None:
    task_id = await upload(player, bytes(20_000_000), "0" * 64)
    assert (await ended(player, task_id)).status == "failed"

    async def is_gone() -> bool:
        return bucket.unfinished == 0 and task_id not in bucket.ask()

    await becomes(is_gone, "it is removed")
    assert isinstance((await view(player, task_id)).error, str)
