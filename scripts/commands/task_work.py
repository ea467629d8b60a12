"""`lobbyctl task list | show | retry | cancel`: look at slow work, and decide."""

import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from runtime.daemon import EXIT_ERROR
from scripts.commands.operators import operator
from scripts.commands.system import Stores, with_stores
from scripts.commands.task_telling import tell
from storage.audit import ALLOWED, Audit, Entry
from storage.queues import QueueServer
from storage.tasks import TaskArchive, TaskOver, Tasks, TaskState, TaskStatus
from storage.tickets import Record

KEPT_S = 86_400.0
RECORD_TTL_S = 60.0


async def show_list(
    data_dir: Path, config_file: Path | None, status: str | None, limit: int, *, as_json: bool
) -> int:
    """Print tasks. Answers the exit code."""

    async def work(stores: Stores) -> None:
        wanted = None if status is None else TaskStatus(status)
        found = [_facts(state) for state in await _archive(stores).of_status(wanted, limit)]
        if as_json:
            print(json.dumps({"tasks": found}, ensure_ascii=False))
            return
        if not found:
            print("There are no tasks." if status is None else f"No task is {status}.")
        for each in found:
            print(f"{each['taskId']}  {each['createdAt']}  {each['status']:<10}  {each.get('error', '')}")

    return await with_stores(data_dir, config_file, work)


async def show(data_dir: Path, config_file: Path | None, task_id: str, *, as_json: bool) -> int:
    """Print a task. Answers the exit code."""

    async def work(_: Stores, state: TaskState) -> None:
        found = _facts(state)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        for name, value in found.items():
            print(f"{name}: {value}")

    return await _with_task(data_dir, config_file, task_id, work)


async def retry(data_dir: Path, config_file: Path | None, task_id: str, *, as_json: bool) -> int:
    """Have a task done again. Answers the exit code."""

    async def work(stores: Stores, state: TaskState) -> int | None:
        again = None
        if state.letter is not None:
            await tell(stores.wire, state.user_id, task_id, TaskStatus.PENDING)
            again = await _tasks(stores).requeue(state.task_type, state.letter)
        if again is None:
            print(
                f"{task_id} is {state.status} and no dead letter: it cannot be done again.", file=sys.stderr
            )
            return EXIT_ERROR
        await _note(stores, state, TaskStatus.PENDING, "retry")
        _say(task_id, TaskStatus.PENDING, as_json=as_json)
        return None

    return await _with_task(data_dir, config_file, task_id, work)


async def cancel(data_dir: Path, config_file: Path | None, task_id: str, *, as_json: bool) -> int:
    """Give a task up. Answers the exit code."""

    async def work(stores: Stores, state: TaskState) -> int | None:
        try:
            await _tasks(stores).cancel(state, Record(uuid.uuid4().hex, RECORD_TTL_S))
        except TaskOver:
            print(f"{task_id} is {state.status} already.", file=sys.stderr)
            return EXIT_ERROR
        await tell(stores.wire, state.user_id, task_id, TaskStatus.CANCELLED)
        await _note(stores, state, TaskStatus.CANCELLED, "cancel")
        _say(task_id, TaskStatus.CANCELLED, as_json=as_json)
        return None

    return await _with_task(data_dir, config_file, task_id, work)


async def _with_task(
    data_dir: Path,
    config_file: Path | None,
    task_id: str,
    work: Callable[[Stores, TaskState], Awaitable[int | None]],
) -> int:
    async def find(stores: Stores) -> int | None:
        state = await _tasks(stores).get(task_id) or await _archive(stores).get(task_id)
        if state is None:
            print(f"There is no task {task_id}.", file=sys.stderr)
            return EXIT_ERROR
        return await work(stores, state)

    return await with_stores(data_dir, config_file, find)


async def _note(stores: Stores, state: TaskState, status: TaskStatus, action: str) -> None:
    """Write down who did it."""
    said = f"{state.status}->{status}"
    entry = Entry(operator(), f"task:{action}", f"task:{state.task_id}", ALLOWED, "lobbyctl", said)
    await Audit(stores.redis).append([entry])


def _say(task_id: str, status: TaskStatus, *, as_json: bool) -> None:
    found = {"taskId": task_id, "status": status.value}
    print(json.dumps(found) if as_json else f"{task_id} is {status}.")


def _tasks(stores: Stores) -> Tasks:
    return Tasks(stores.redis, QueueServer(stores.redis), keep_s=KEPT_S)


def _archive(stores: Stores) -> TaskArchive:
    return TaskArchive(stores.database, stores.redis, _tasks(stores))


def _facts(state: TaskState) -> dict[str, Any]:
    at = datetime.fromtimestamp(state.created_at / 1000, UTC).isoformat(timespec="seconds")
    facts: dict[str, Any] = {
        "taskId": state.task_id,
        "taskType": state.task_type,
        "userId": state.user_id,
        "status": state.status.value,
        "priority": state.priority,
        "progress": state.progress,
        "createdAt": at.replace("+00:00", "Z"),
    }
    if state.error is not None:
        facts["error"] = state.error
    if state.letter is not None:
        facts["deadLetter"] = state.letter
    if state.result is not None:
        facts["result"] = msgspec.json.decode(state.result)
    return facts
