"""Players at the portal: what they ask for, what they hear of it, and what it has left behind."""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.codec import encode
from protocol.messages.portal import (
    Status,
    Submit,
    Submitted,
    TaskType,
    TaskUpdate,
    TaskView,
    Upload,
    Uploaded,
)
from protocol.queues import Lane
from storage import keys
from storage.connections import connect
from storage.database import Database
from storage.queues import QueueServer
from storage.tasks import Accepted, NewTask, Tasks, TaskState
from tests.system.cluster import START_DEADLINE_S, Cluster
from tests.system.guest import Guest

POLL_S = 0.05
CHUNK_BYTES = 700_000
SUBMIT_FILE: dict[str, Any] = {"task_type": TaskType.FILE_UPLOAD}


class Raw(dict[str, Any]):
    """The data of a `portal.submit` that no Struct could hold."""


class Player(Guest):
    """A guest with a name, and an access token to come back with."""

    name = access_token = ""


async def signed_in(portal: Cluster, *, role: str | None = None) -> Player:
    """Somebody new, on a connection of their own."""
    player = await Player.at(portal["SOCK001"].endpoint)
    player.name = f"player-{uuid.uuid4().hex[:12]}"
    await player.register(player.name)
    if role is not None:
        await rows(portal, "UPDATE users SET role = :role WHERE user_id = :name", role=role, name=player.name)
        portal.redis.delete(keys.user(player.name))
    player.access_token = (await player.sign_in(player.name)).access_token
    return player


async def rows(portal: Cluster, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """Do something in the cluster's database. Answers the rows, if it gives any."""

    async def work(connection: AsyncConnection) -> list[tuple[Any, ...]]:
        found = await connection.execute(text(statement), values)
        return [tuple(row) for row in found] if found.returns_rows else []

    database = Database(str(portal.settings["database.url"]))
    try:
        return await database.transaction(work)
    finally:
        await database.close()


async def becomes(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until a condition that must be awaited holds."""
    async with asyncio.timeout(START_DEADLINE_S):
        while not await condition():
            await asyncio.sleep(POLL_S)


def files_of(portal: Cluster) -> list[Path]:
    """Everything that lies in the store of files."""
    folder = Path(str(portal.settings["portal.storage_url"]))
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def submit(guest: Guest, key: str | None = None, **data: Any) -> Submitted:
    """Ask for a task."""
    return cast(Submitted, await guest.ask(Submit(**data), key))


async def send(guest: Guest, task_id: str, content: bytes, offset: int) -> Uploaded:
    """Send the chunk of a file that begins at `offset`."""
    chunk = content[offset : offset + CHUNK_BYTES]
    return cast(Uploaded, await guest.ask(Upload(task_id=task_id, offset=offset, chunk=chunk)))


async def ended(guest: Guest, task_id: str) -> TaskUpdate:
    """Wait until a task is over. Answers how it ended."""
    number = 0
    while True:
        number += 1
        update = await guest.hear(TaskUpdate, number)
        if update.task_id == task_id and update.status not in {"pending", "processing"}:
            return update


def told_of(guest: Guest, task_id: str) -> list[TaskUpdate]:
    """All that was told of a task, in order."""
    return [update for update in guest.all(TaskUpdate) if update.task_id == task_id]


def statuses(updates: Sequence[TaskUpdate]) -> list[str]:
    """The statuses in them, each once as long as it lasts, in order."""
    found: list[str] = []
    for update in updates:
        if found[-1:] != [update.status]:
            found.append(update.status)
    return found


async def view(guest: Guest, task_id: str) -> TaskView:
    """Ask how a task is."""
    return cast(TaskView, await guest.ask(Status(task_id=task_id)))


class Office:
    """Where tasks of any kind are asked for in a user's name, without their node."""

    def __init__(self, portal: Cluster) -> None:
        self.redis = connect(str(portal.settings["redis.url"]))
        self.tasks = Tasks(self.redis, QueueServer(self.redis), keep_s=600, most_open=10_000)
        self._numbers = itertools.count()

    async def assign(
        self, kind: str, user_id: str, task: msgspec.Struct, count: int = 1, lane: Lane = Lane.NORMAL
    ) -> list[str]:
        """Have a task accepted, so many times. Answers the tasks' ids."""
        message = encode(task)
        new = [
            NewTask(f"task_1_{user_id}_{kind}{next(self._numbers)}", user_id, lane, message)
            for _ in range(count)
        ]
        answers = await self.tasks.submit_many(kind, new)
        assert all(isinstance(answer, Accepted) for answer in answers)
        return [task.task_id for task in new]

    async def states(self, task_ids: Sequence[str]) -> list[TaskState]:
        """How tasks are that Redis knows."""
        found = await self.tasks.get_many(task_ids)
        return [state for state in found if state is not None]
