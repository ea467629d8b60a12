"""Files: small ones come along, large ones in chunks; what is not to be leaves nothing."""

import hashlib
import io
import uuid
from pathlib import Path
from typing import Any

import pytest

from client.uploading import send_file
from protocol.messages.portal import CancelTask, Status, Upload, Uploaded
from tests.system.cluster import Cluster, eventually
from tests.system.portal.asking import (
    CHUNK_BYTES,
    SUBMIT_FILE,
    Player,
    ended,
    files_of,
    rows,
    send,
    signed_in,
    statuses,
    submit,
    told_of,
    view,
)

pytestmark = pytest.mark.servers


async def files_noted(portal: Cluster, player: Player) -> int:
    """How many files and uploads of a player the database knows."""
    found = await rows(portal, "SELECT COUNT(*) FROM portal_files WHERE user_id = :name", name=player.name)
    return int(found[0][0])


async def test_a_file_that_comes_along_is_stored(portal: Cluster, player: Player) -> None:
    content = b"hello, portal\n" * 100

    accepted = await submit(player, **SUBMIT_FILE, file_name="인사.txt", size=len(content), file_data=content)
    update = await ended(player, accepted.task_id)

    assert statuses(told_of(player, accepted.task_id)) == ["processing", "completed"]
    digest = hashlib.sha256(content).hexdigest()
    assert update.result["sha256"] == digest
    assert update.result["contentType"] == "text/plain"
    seen = await view(player, accepted.task_id)
    assert (seen.status, seen.progress, seen.result) == ("completed", 100, update.result)
    stored = Path(str(portal.settings["portal.storage_url"]), update.result["path"])
    assert stored.read_bytes() == content


async def test_a_file_comes_in_chunks_over_two_connections(portal: Cluster, player: Player) -> None:
    content = uuid.uuid4().bytes * 100_000
    digest = hashlib.sha256(content).hexdigest()
    accepted = await submit(player, **SUBMIT_FILE, file_name="game.png", size=len(content), sha256=digest)
    assert accepted.upload_offset == 0
    sent = await send(player, accepted.task_id, content, 0)
    assert sent == Uploaded(upload_offset=CHUNK_BYTES, complete=False)
    assert await send(player, accepted.task_id, content, 0) == sent

    back = await Player.at(portal["SOCK001"].endpoint)
    await back.resume(player.access_token)

    off_by_one = Upload(task_id=accepted.task_id, offset=CHUNK_BYTES + 1, chunk=b"x")
    refused = await back.refused(off_by_one, "WRONG_OFFSET")
    assert str(CHUNK_BYTES) in refused.message
    assert (await view(back, accepted.task_id)).upload_offset == CHUNK_BYTES
    for offset in range(CHUNK_BYTES, len(content), CHUNK_BYTES):
        last = await send(back, accepted.task_id, content, offset)
    assert last == Uploaded(upload_offset=len(content), complete=True)
    assert (await ended(back, accepted.task_id)).result["sha256"] == digest
    back.leave()


async def test_a_file_is_sent_several_chunks_at_a_time(player: Player) -> None:
    content = uuid.uuid4().bytes * 180_000
    digest = hashlib.sha256(content).hexdigest()
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=len(content), sha256=digest)

    await send_file(player.ask, accepted.task_id, io.BytesIO(content), 0)

    assert (await ended(player, accepted.task_id)).result["sha256"] == digest


async def test_a_file_goes_on_where_its_bytes_are_wanted(player: Player) -> None:
    content = uuid.uuid4().bytes * 180_000
    digest = hashlib.sha256(content).hexdigest()
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=len(content), sha256=digest)
    for offset in (0, CHUNK_BYTES):
        await send(player, accepted.task_id, content, offset)

    await send_file(player.ask, accepted.task_id, io.BytesIO(content), 0)

    assert (await ended(player, accepted.task_id)).result["sha256"] == digest


async def test_a_file_is_one_however_often_its_request_is_repeated(portal: Cluster, player: Player) -> None:
    key = uuid.uuid4().hex
    data: dict[str, Any] = {**SUBMIT_FILE, "file_name": "a", "size": 1, "file_data": b"x"}

    first = await submit(player, key, **data)
    again = await submit(player, key, **data)

    assert again == first
    assert await files_noted(portal, player) == 1


async def test_a_file_of_another_is_not_seen(portal: Cluster, player: Player) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=10)
    stranger = await signed_in(portal)

    await stranger.refused(Status(task_id=accepted.task_id), "TASK_NOT_FOUND")
    await stranger.refused(Upload(task_id=accepted.task_id, offset=0, chunk=b"x"), "TASK_NOT_FOUND")
    await stranger.refused(CancelTask(task_id=accepted.task_id), "TASK_NOT_FOUND")
    stranger.leave()


async def test_a_file_that_is_given_up_leaves_nothing(portal: Cluster, player: Player) -> None:
    before = files_of(portal)
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=10)
    await player.ask(Upload(task_id=accepted.task_id, offset=0, chunk=b"x"))

    await player.ask(CancelTask(task_id=accepted.task_id))

    assert (await ended(player, accepted.task_id)).status == "cancelled"
    await player.refused(CancelTask(task_id=accepted.task_id), "ALREADY_FINISHED")
    await player.refused(Upload(task_id=accepted.task_id, offset=1, chunk=b"x"), "ALREADY_FINISHED")
    await eventually(lambda: files_of(portal) == before, "its bytes are removed")


@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("photo.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "image/png"),
        ("photo.png", b"MZ" + bytes(100), "application/x-msdownload"),
        ("photo.png", b"<script>alert(1)</script>", "text/plain"),
        ("notes.txt", b"%PDF-1.7\n" + bytes(100), "application/pdf"),
        ("notes.txt", b"a\0b", "application/octet-stream"),
        ("notes.txt", b"\xff\xfe\xfd", "application/octet-stream"),
        ("rows.csv", b"PK\x03\x04" + bytes(100), "application/zip"),
        ("virus.exe", "가나다".encode() * 4000, "text/plain"),
        ("empty.png", b"", "text/plain"),
    ],
)
async def test_the_type_is_told_by_the_bytes_and_not_by_the_name(
    player: Player, name: str, content: bytes, content_type: str
) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name=name, size=len(content), file_data=content)
    assert (await ended(player, accepted.task_id)).result["contentType"] == content_type


async def test_the_type_is_told_by_the_bytes_however_they_came(player: Player) -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(100)
    accepted = await submit(player, **SUBMIT_FILE, file_name="notes.txt", size=len(content))

    for offset in range(0, 8, 2):
        chunk = content[offset : offset + 2]
        await player.ask(Upload(task_id=accepted.task_id, offset=offset, chunk=chunk))
    await send(player, accepted.task_id, content, 8)

    assert (await ended(player, accepted.task_id)).result["contentType"] == "image/png"
