"""Operators at the portal: they see tasks and dead letters, and decide."""

import asyncio
import json
import subprocess
from typing import Any

import pytest

from protocol.messages.portal import TaskType
from protocol.queues import Lane
from storage import keys
from storage.connections import connect
from storage.queues import QueueServer
from storage.tasks import NewTask, Tasks
from tests.commands.running import LOBBYCTL
from tests.system.cluster import Cluster, eventually
from tests.system.portal.asking import (
    SUBMIT_FILE,
    Player,
    becomes,
    ended,
    files_of,
    rows,
    signed_in,
    statuses,
    submit,
    told_of,
)

pytestmark = pytest.mark.servers


class Desk:
    """An operator's place at the portal."""

    def __init__(self, portal: Cluster) -> None:
        self._folder = portal.folder
        endpoints = {
            "sockets": {},
            "redis": str(portal.settings["redis.url"]),
            "database": str(portal.settings["database.url"]),
            "pids": {},
        }
        (portal.folder / "endpoints.json").write_text(json.dumps(endpoints))

    async def type(self, *words: str) -> tuple[int, str]:
        """Run `lobbyctl`. Answers its exit code, and what it said."""
        command = [LOBBYCTL, *words, "--data-dir", str(self._folder)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=90, check=False
        )
        return done.returncode, done.stdout + done.stderr

    async def do(self, *words: str) -> dict[str, Any]:
        """Run a command that works, and take what it says as JSON."""
        code, said = await self.type(*words, "--json")
        assert code == 0, said
        found: dict[str, Any] = json.loads(said)
        return found


async def test_operators_see_tasks_and_dead_letters_and_decide(portal: Cluster) -> None:
    desk, queue = Desk(portal), keys.task_queue("notification")
    redis = connect(str(portal.settings["redis.url"]))
    tasks = Tasks(redis, QueueServer(redis), keep_s=600)
    player = await signed_in(portal)
    spoiled = NewTask(f"task_1_{player.name}_spoiled", player.name, Lane.NORMAL, b"\xc1")
    await tasks.submit("notification", spoiled)
    assert (await ended(player, spoiled.task_id)).status == "failed"

    assert (await desk.do("dead-letters", "list"))["queues"][queue] == 1
    (letter,) = (await desk.do("dead-letters", "list", queue))["letters"]
    assert letter["taskId"] == spoiled.task_id
    assert "cannot be read" in letter["cause"]
    assert (await desk.do("dead-letters", "show", queue, letter["id"]))["message"] == "\ufffd"
    shown = await desk.do("task", "show", spoiled.task_id)
    assert (shown["status"], shown["deadLetter"]) == ("failed", letter["id"])

    assert (await desk.do("task", "retry", spoiled.task_id))["status"] == "pending"
    await eventually(lambda: portal.redis.xlen(keys.dead_letters(queue)) == 1, "it failed again")
    (again,) = (await desk.do("dead-letters", "list", queue))["letters"]
    assert again["id"] != letter["id"]
    assert (await desk.do("dead-letters", "requeue", queue, "--all"))["done"] == 1
    await eventually(lambda: portal.redis.xlen(keys.dead_letters(queue)) == 1, "it failed again")

    async def has_heard_all() -> bool:
        tried = ["processing", "failed"]
        wanted = [*tried, "pending", *tried, "pending", *tried]
        return statuses(told_of(player, spoiled.task_id)) == wanted

    await becomes(has_heard_all, "its user heard of each try, and of what the operator did")
    assert (await desk.do("dead-letters", "drop", queue, "--all"))["done"] == 1
    assert (await desk.type("dead-letters", "drop", queue, letter["id"]))[0] == 1
    assert (await desk.type("task", "retry", spoiled.task_id))[0] == 1

    held = await submit(player, task_type=TaskType.FILE_UPLOAD, file_name="a", size=10)
    assert (await desk.do("task", "cancel", held.task_id))["status"] == "cancelled"
    assert (await ended(player, held.task_id)).status == "cancelled"
    assert (await desk.type("task", "cancel", held.task_id))[0] == 1
    assert (await desk.type("task", "show", "task_1_nobody_x"))[0] == 1
    listed = await desk.do("task", "list", "--status", "cancelled")
    assert held.task_id in [each["taskId"] for each in listed["tasks"]]
    await redis.aclose()
    player.leave()


async def test_operators_see_what_a_user_has_stored_and_remove_it(portal: Cluster, player: Player) -> None:
    desk = Desk(portal)
    kept, gone = [
        await submit(player, **SUBMIT_FILE, file_name=name, size=4, file_data=name.encode())
        for name in ("kept", "gone")
    ]
    for accepted in (kept, gone):
        assert (await ended(player, accepted.task_id)).status == "completed"
    left = await submit(player, **SUBMIT_FILE, file_name="left", size=10)

    listed = await desk.do("file", "list", player.name)
    assert listed["takenBytes"] == 18
    assert {each["fileName"]: (each["size"], each["storedAt"] is None) for each in listed["files"]} == {
        "kept": (4, False),
        "gone": (4, False),
        "left": (10, True),
    }
    words = ("file", "remove", player.name, gone.task_id, left.task_id)
    assert await desk.do(*words) == {"removed": 2, "bytes": 14}
    assert (await ended(player, left.task_id)).status == "cancelled"
    assert (await desk.type(*words))[0] == 1, "they are removed already"
    assert (await desk.type("file", "remove", "nobody", "--all"))[0] == 1

    worker = await asyncio.to_thread(portal.start_worker, "portal", 3, {"portal.upload_ttl_s": 0.5})

    async def stored() -> list[str]:
        asked = "SELECT file_id FROM portal_files WHERE user_id = :name"
        return [file_id for (file_id,) in await rows(portal, asked, name=player.name)]

    async def is_swept() -> bool:
        return await stored() == [kept.task_id]

    await becomes(is_swept, "the workers remove it")
    assert [path.name for path in files_of(portal) if player.name in path.parts] == [kept.task_id]
    assert (await desk.do("file", "remove", player.name, "--all"))["removed"] == 1

    async def has_nothing() -> bool:
        return await stored() == []

    await becomes(has_nothing, "all is removed")
    assert worker.end() == 0
    found: Any = portal.redis.lrange(keys.AUDIT_LOGS, 0, -1)
    lines = "\n".join(found)
    assert all(f"|file:remove|file:{each.task_id}|" in lines for each in (kept, gone, left))
