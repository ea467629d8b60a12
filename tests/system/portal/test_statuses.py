"""Tasks as a client sees them: for each kind every change, as it happens."""

import contextlib
import hashlib
import sqlite3
import uuid
from collections.abc import Iterator

import pytest

from protocol.messages.portal import TaskType, TaskUpdate
from protocol.messages.processing import Operation, Sort, Source
from tests.system.cluster import Cluster
from tests.system.portal.asking import (
    CHUNK_BYTES,
    SUBMIT_FILE,
    Player,
    ended,
    send,
    statuses,
    submit,
    told_of,
    view,
)

pytestmark = pytest.mark.servers


@contextlib.contextmanager
def slow_database(portal: Cluster) -> Iterator[None]:
    """Let nobody else write to the database meanwhile: tasks come so far and stand still."""
    path = str(portal.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def progress_of(player: Player, task_id: str) -> None:
    """Wait until a task is told to be somewhere between its beginning and its end."""
    number = 0
    while True:
        number += 1
        update = await player.hear(TaskUpdate, number)
        if update.task_id == task_id and update.status == "processing" and update.progress > 0:
            return


async def see_through(player: Player, task_id: str) -> TaskUpdate:
    """See every change of a task. Answers its end.

    Where the machine is so slow that the database counts as away, it is tried again: `pending`, and anew.
    """
    end = await ended(player, task_id)
    told = told_of(player, task_id)
    pauses = [number for number, update in enumerate(told) if update.status == "pending"]
    last = told[pauses[-1] + 1 :] if pauses else told
    assert statuses(last) == ["processing", "completed"]
    percents = [update.progress for update in last]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    seen = await view(player, task_id)
    assert (seen.status, seen.progress, seen.result) == ("completed", 100, end.result)
    return end


async def test_of_a_file(portal: Cluster, player: Player) -> None:
    content = uuid.uuid4().bytes * 60_000
    digest = hashlib.sha256(content).hexdigest()
    accepted = await submit(player, **SUBMIT_FILE, file_name="a.bin", size=len(content), sha256=digest)
    assert (await view(player, accepted.task_id)).status == "pending"
    await send(player, accepted.task_id, content, 0)

    with slow_database(portal):
        assert (await send(player, accepted.task_id, content, CHUNK_BYTES)).complete
        await progress_of(player, accepted.task_id)
        assert (await view(player, accepted.task_id)).status != "completed"

    end = await see_through(player, accepted.task_id)
    assert (end.result["size"], end.result["sha256"]) == (len(content), digest)


async def test_of_data(portal: Cluster, player: Player) -> None:
    content = b"number,text\n" + b"".join(b"%d,row\n" % number for number in range(5000))
    file = await submit(player, **SUBMIT_FILE, file_name="rows.csv", size=len(content), file_data=content)
    await ended(player, file.task_id)
    operation = Operation(sort=(Sort(column="number", descending=True),))

    with slow_database(portal):
        accepted = await submit(
            player,
            task_type=TaskType.DATA_PROCESSING,
            source=Source(file_id=file.task_id),
            operation=operation,
        )
        await progress_of(player, accepted.task_id)

    end = await see_through(player, accepted.task_id)
    assert (end.result["rowCount"], "resultFile" in end.result) == (5000, True)


async def test_of_a_notification(portal: Cluster, player: Player) -> None:
    nobodies = tuple(f"nobody-{number}" for number in range(500))

    with slow_database(portal):
        accepted = await submit(
            player, task_type=TaskType.NOTIFICATION, message="hi", recipients=(*nobodies, player.name)
        )
        await progress_of(player, accepted.task_id)

    end = await see_through(player, accepted.task_id)
    assert (end.result["sentCount"], end.result["failedCount"]) == (1, 500)
