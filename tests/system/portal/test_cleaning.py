"""Uploads that nobody finishes, and files of tasks that failed."""

import asyncio

import pytest

from protocol.messages.portal import Upload
from tests.system.cluster import Cluster, eventually
from tests.system.portal.asking import (
    SUBMIT_FILE,
    Player,
    becomes,
    ended,
    files_of,
    rows,
    send,
    submit,
    view,
)

pytestmark = pytest.mark.servers

IMPATIENT = {"portal.upload_ttl_s": 0.5}


async def test_an_upload_that_nobody_finishes_is_removed(portal: Cluster, player: Player) -> None:
    kept = await submit(player, **SUBMIT_FILE, file_name="kept", size=4, file_data=b"kept")
    assert (await ended(player, kept.task_id)).status == "completed"
    files = files_of(portal)
    left = await submit(player, **SUBMIT_FILE, file_name="left", size=10)
    await send(player, left.task_id, b"12345", 0)
    untouched = await submit(player, **SUBMIT_FILE, file_name="untouched", size=10)
    assert len(files_of(portal)) == len(files) + 1

    worker = await asyncio.to_thread(portal.start_worker, "portal", 3, IMPATIENT)

    for accepted in (left, untouched):
        assert (await ended(player, accepted.task_id)).status == "cancelled"
        assert (await view(player, accepted.task_id)).status == "cancelled"
        chunk = Upload(task_id=accepted.task_id, offset=5, chunk=b"6")
        await player.refused(chunk, "ALREADY_FINISHED")
    await eventually(lambda: files_of(portal) == files, "their bytes are removed, and nothing else")

    async def is_forgotten() -> bool:
        asked = "SELECT file_id FROM portal_files WHERE user_id = :name"
        return await rows(portal, asked, name=player.name) == [(kept.task_id,)]

    await becomes(is_forgotten, "their room is free again")
    assert worker.end() == 0
