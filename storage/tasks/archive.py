"""Tasks in the database: written a moment after they change, asked for when Redis has forgotten them.

Redis holds the tasks that are under way; the database is what outlives it. One process at a time writes what
changed, in batches. A Redis that has lost its tasks gets the open ones back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.queues import Lane
from storage import keys
from storage.database import Database
from storage.errors import redis_away_is_store_away
from storage.files import Files, Upload
from storage.servers import hold
from storage.tables import portal_tasks
from storage.tasks.acceptance import Tasks
from storage.tasks.task import LIBRARY, LostTask, NewTask, TaskState, TaskStatus, state_of
from storage.wire import Executor

MOST_CHANGES = 500
MOST_BYTES = 4 * 2**20
"""Of inputs in one transaction: MariaDB takes 16 MiB in a packet by default."""

_OPEN = (TaskStatus.PENDING.value, TaskStatus.PROCESSING.value)


class TaskArchive:
    """The tasks of one system in its database. Raises StoreAway."""

    def __init__(self, database: Database, redis: Executor, tasks: Tasks) -> None:
        self._database = database
        self._redis = redis
        self._tasks = tasks

    async def lead(self, boot_id: str, ttl_s: float) -> bool:
        """Whether this process is the one that writes now; asking in time keeps it so."""
        return await hold(self._redis, keys.PORTAL_ARCHIVE, boot_id, ttl_s)

    async def save(self, boot_id: str) -> int:
        """Write what changed first, as the one who leads. Answers how many changes that were, or 0."""
        args = (keys.TASK_PREFIX, keys.TASK_QUEUE_PREFIX, MOST_CHANGES, MOST_BYTES)
        changed, changes = await LIBRARY.call(self._redis, "task_unsaved", [keys.PORTAL_UNSAVED], args)
        rows = [row for each in changed if (row := _row(*each)) is not None]
        if rows:
            await self._database.transaction(_putting(sorted(rows, key=lambda row: str(row["task_id"]))))
        if changes:
            await LIBRARY.call(
                self._redis, "task_saved", [keys.PORTAL_UNSAVED, keys.PORTAL_ARCHIVE], [boot_id, changes]
            )
        return int(changes)

    async def get(self, task_id: str) -> TaskState | None:
        """A task as it was written last; None when it is unknown."""

        async def query(connection: AsyncConnection) -> TaskState | None:
            found = await connection.execute(select(portal_tasks).where(portal_tasks.c.task_id == task_id))
            row = found.one_or_none()
            return None if row is None else _state(row)

        return await self._database.read(query)

    async def of_status(self, status: TaskStatus | None, most: int) -> list[TaskState]:
        """The newest tasks, of one status or of any."""

        async def query(connection: AsyncConnection) -> list[TaskState]:
            found = select(portal_tasks).order_by(portal_tasks.c.created_at.desc()).limit(most)
            if status is not None:
                found = found.where(portal_tasks.c.status == status.value)
            return [_state(row) for row in await connection.execute(found)]

        return await self._database.read(query)

    async def restore(self, files: Files) -> int:
        """Give a Redis that has lost some tasks, or all, the open ones back. Answers how many.

        It may have wherever it was started anew or another took its place: that is looked after once. An
        upload goes on after the bytes that `files` has of it. This may be asked for often.
        """
        run = await LIBRARY.call(self._redis, "task_run_without", [keys.PORTAL_RESTORED], ())
        if not run:
            return 0
        restored, last = 0, ""
        while rows := await self._open_after(last):
            last = rows[-1].task_id
            restored += await self._give_back(rows, await files.begun([row.task_id for row in rows]))
        with redis_away_is_store_away():
            await self._redis.execute_command("SET", keys.PORTAL_RESTORED, run)
        return restored

    async def _give_back(self, rows: Sequence[Any], uploads: Mapping[str, Upload]) -> int:
        lost: dict[str, list[LostTask]] = {}
        for row in rows:
            upload = uploads.get(row.task_id)
            task = LostTask(
                NewTask(row.task_id, row.user_id, Lane(row.priority), bytes(row.message)),
                row.created_at,
                None if upload is None or upload.is_whole else (upload.size_bytes, upload.come_bytes),
            )
            lost.setdefault(row.task_type, []).append(task)
        return sum([await self._tasks.restore(task_type, some) for task_type, some in lost.items()])

    async def _open_after(self, task_id: str) -> Sequence[Any]:
        async def query(connection: AsyncConnection) -> Sequence[Any]:
            found = (
                select(portal_tasks)
                .where(
                    portal_tasks.c.status.in_(_OPEN),
                    portal_tasks.c.task_id > task_id,
                    portal_tasks.c.message.is_not(None),
                )
                .order_by(portal_tasks.c.task_id)
                .limit(MOST_CHANGES)
            )
            return (await connection.execute(found)).all()

        return await self._database.read(query)


def _putting(rows: Sequence[dict[str, Any]]) -> Any:
    async def work(connection: AsyncConnection) -> None:
        ids = [row["task_id"] for row in rows]
        asked = select(portal_tasks.c.task_id).where(portal_tasks.c.task_id.in_(ids))
        known = set(await connection.scalars(asked))
        new = [row for row in rows if row["task_id"] not in known]
        if new:
            await connection.execute(insert(portal_tasks), new)
        for row in rows:
            if row["task_id"] in known:
                values = {name: row[name] for name in ("status", "finished_at", "result", "error")}
                if row["message"] is not None or row["finished_at"] is not None:
                    values["message"] = row["message"]
                statement = update(portal_tasks).where(portal_tasks.c.task_id == row["task_id"])
                await connection.execute(statement.values(values))

    return work


def _row(task_id: bytes, fields: Sequence[bytes], message: bytes) -> dict[str, Any] | None:
    state = state_of(task_id.decode(), fields)
    if state is None:
        return None
    return {
        "task_id": state.task_id,
        "user_id": state.user_id,
        "task_type": state.task_type,
        "status": state.status.value,
        "priority": state.priority,
        "created_at": state.created_at,
        "finished_at": state.finished_at,
        "message": message or None,
        "result": state.result,
        "error": state.error,
    }


def _state(row: Any) -> TaskState:
    status = TaskStatus(row.status)
    return TaskState(
        task_id=row.task_id,
        user_id=row.user_id,
        task_type=row.task_type,
        status=status,
        progress=100 if status is TaskStatus.COMPLETED else 0,
        created_at=row.created_at,
        priority=row.priority,
        result=row.result,
        error=row.error,
        finished_at=row.finished_at,
    )
