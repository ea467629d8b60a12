"""`lobbyctl file list | remove`: what a user has stored, and operators who remove it.

`remove` can be given again after it was cut off, and then does what was left undone.
"""

import contextlib
import json
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.daemon import EXIT_ERROR
from scripts.commands.operators import operator
from scripts.commands.system import Stores, with_stores
from scripts.commands.task_telling import tell
from scripts.commands.user_look import is_known
from storage.audit import ALLOWED, Audit, Entry
from storage.files import File, OwnedFiles
from storage.queues import QueueServer
from storage.tasks import TaskNotFound, TaskOver, Tasks, TaskStatus
from storage.tickets import Record
from storage.users import fold

MOST_AT_ONCE = 1000
KEPT_S = 86_400.0
RECORD_TTL_S = 60.0


async def show_list(
    data_dir: Path, config_file: Path | None, username: str, limit: int, *, as_json: bool
) -> int:
    """Print a user's files. Answers the exit code."""

    async def work(stores: Stores, user_id: str) -> None:
        files = OwnedFiles(stores.database)
        found = [_facts(file) for file in await files.of(user_id, limit)]
        taken_bytes = await files.taken_bytes(user_id)
        if as_json:
            print(json.dumps({"files": found, "takenBytes": taken_bytes}, ensure_ascii=False))
            return
        for each in found:
            print(f"{each['fileId']}  {each['createdAt']}  {each['size']:>13,}  {each['fileName']}")
        print(f"{user_id}'s files take {taken_bytes:,} bytes.")

    return await _with_user(data_dir, config_file, username, work)


async def remove(
    data_dir: Path,
    config_file: Path | None,
    username: str,
    file_ids: Sequence[str] | None,
    *,
    as_json: bool,
) -> int:
    """Remove some of a user's files, or all. Answers the exit code."""

    async def work(stores: Stores, user_id: str) -> int | None:
        files, removed = OwnedFiles(stores.database), list[File]()
        try:
            while some := await files.of(user_id, MOST_AT_ONCE, file_ids):
                for file in some:
                    await _remove(stores, files, file)
                    removed.append(file)
        finally:
            await _write_down(stores, removed)
        missing = set(file_ids or ()) - {file.file_id for file in removed}
        for file_id in sorted(missing):
            print(f"{user_id} has no file {file_id}.", file=sys.stderr)
        found = {"removed": len(removed), "bytes": sum(file.size_bytes for file in removed)}
        said = f"remove: {found['removed']:,} of {user_id}, {found['bytes']:,} bytes."
        print(json.dumps(found) if as_json else said)
        return EXIT_ERROR if missing else None

    return await _with_user(data_dir, config_file, username, work)


async def _remove(stores: Stores, files: OwnedFiles, file: File) -> None:
    if file.stored_at is None:
        await _cancel(stores, file.file_id)
    await files.give_up(file.file_id)


async def _cancel(stores: Stores, task_id: str) -> None:
    """Give the task up that brings a file, where it is not over; tell its user."""
    tasks = Tasks(stores.redis, QueueServer(stores.redis), keep_s=KEPT_S)
    state = await tasks.get(task_id)
    if state is not None:
        with contextlib.suppress(TaskOver, TaskNotFound):
            await tasks.cancel(state, Record(uuid.uuid4().hex, RECORD_TTL_S))
            await tell(stores.wire, state.user_id, task_id, TaskStatus.CANCELLED)


async def _with_user(
    data_dir: Path,
    config_file: Path | None,
    username: str,
    work: Callable[[Stores, str], Awaitable[int | None]],
) -> int:
    async def find(stores: Stores) -> int | None:
        user_id = fold(username)
        return await work(stores, user_id) if await is_known(stores, user_id) else EXIT_ERROR

    return await with_stores(data_dir, config_file, find)


async def _write_down(stores: Stores, removed: Sequence[File]) -> None:
    """Write down who did it, a line a file."""
    if removed:
        who = operator()
        await Audit(stores.redis).append(
            Entry(who, "file:remove", f"file:{file.file_id}", ALLOWED, "lobbyctl", f"{file.size_bytes} bytes")
            for file in removed
        )


def _facts(file: File) -> dict[str, Any]:
    return {
        "fileId": file.file_id,
        "fileName": file.file_name,
        "size": file.size_bytes,
        "createdAt": _time(file.created_at),
        "storedAt": None if file.stored_at is None else _time(file.stored_at),
        "contentType": file.content_type,
        "sha256": file.sha256,
    }


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
