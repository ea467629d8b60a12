"""Tasks whose workers are killed, whose input kills workers, and email to a server that really answers."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import Iterator
from email.message import Message as Mail
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import AsyncMessage
from aiosmtpd.smtp import SMTP, Envelope, Session

from protocol.messages.portal import Channel, TaskType
from protocol.queues import Lane
from storage import keys
from storage.connections import connect
from storage.queues import QueueServer
from storage.tasks import NewTask, Tasks
from tests.commands.running import LOBBYCTL
from tests.servers import HOST, free_port
from tests.system.cluster import Cluster, Process, eventually
from tests.system.conftest import run_house
from tests.system.test_portal import Player, database, ended, signed_in, submit

pytestmark = pytest.mark.servers

MANY = 1000
POISONOUS = """
import os, runpy, signal
import msgspec
from workers.portal.kinds import Limits
from workers.portal.room import kinds

class Nothing(msgspec.Struct):
    pass

@kinds.kind("poison", Nothing, Limits(concurrency=4, time_limit_s=60))
async def kill(context, task):
    os.kill(os.getpid(), signal.SIGKILL)

@kinds.kind("harmless", Nothing, Limits(concurrency=4, time_limit_s=60))
async def wait(context, task):
    return "done"

runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""


class Mailbox(AsyncMessage):
    """Keeps what is sent to it, and refuses those who are called so."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Mail] = []

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_message(self, message: Mail) -> None:
        self.mails.append(message)


@pytest.fixture(scope="module")
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    """A mail server: what it got, and its port."""
    mailbox, port = Mailbox(), free_port()
    controller = Controller(mailbox, hostname=HOST, port=port)
    controller.start()
    yield mailbox, port
    controller.stop()


@pytest.fixture(scope="module")
def portal(servers_folder: Path, mailbox: tuple[Mailbox, int]) -> Iterator[Cluster]:
    """A node and a login worker; the tests start the portal workers."""
    settings = {
        "queues.lease_s": 0.5,
        "queues.max_deliveries": 8,
        "portal.max_open_tasks": 2 * MANY,
        "portal.smtp_url": f"smtp://{HOST}:{mailbox[1]}",
    }
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        yield cluster.start()


def completed(portal: Cluster, user_id: str) -> int:
    """How many of a user's tasks are completed, as Redis has them."""
    names = portal.redis.keys(f"{keys.TASK_PREFIX}task_*_{user_id}_*")
    statuses = [portal.redis.hget(name, "status") for name in cast("list[str]", names)]
    return statuses.count("completed")


def backlog(portal: Cluster) -> int:
    """How many notifications are not over."""
    return portal.redis.xlen(keys.task_queue("notification"))


def has_at_most(portal: Cluster, count: int) -> bool:
    return backlog(portal) <= count


def has_died_or_given_up(portal: Cluster, worker: Process, letters: str) -> bool:
    return worker.exit_code is not None or portal.redis.xlen(letters) == 1


async def test_killed_workers_lose_and_double_nothing(portal: Cluster) -> None:
    player, other = await signed_in(portal), await signed_in(portal)
    for number in (1, 2):
        portal.start_worker("portal", number)
    data: dict[str, Any] = {"task_type": TaskType.NOTIFICATION, "recipients": (other.name,)}

    accepted = await asyncio.gather(
        *(submit(player, **data, message=f"message {number}") for number in range(MANY))
    )
    for number in (1, 2, 1, 2):
        left = max(backlog(portal) - 50, 0)
        await eventually(partial(has_at_most, portal, left), "some are done")
        portal[f"portal-{number}"].kill()
        await asyncio.to_thread(portal.start_worker, "portal", number)

    await eventually(partial(has_at_most, portal, 0), "all are over")
    assert completed(portal, player.name) == MANY
    assert len({each.task_id for each in accepted}) == MANY
    with database(portal) as connection:
        found = connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT message) FROM notifications WHERE user_id = ?", (other.name,)
        )
        assert found.fetchone() == (MANY, MANY)
    assert portal.redis.xlen(keys.dead_letters(keys.task_queue("notification"))) == 0
    for guest in (player, other):
        guest.leave()
    for number in (1, 2):
        assert portal[f"portal-{number}"].end() == 0


async def test_a_task_that_kills_its_worker_ends_alone_in_the_dead_letters(portal: Cluster) -> None:
    program = portal.folder / "poisonous.py"
    program.write_text(POISONOUS)
    redis = connect(str(portal.settings["redis.url"]))
    tasks = Tasks(redis, QueueServer(redis), keep_s=600)

    def new(name: str, count: int) -> list[NewTask]:
        return [NewTask(f"task_1_u_{name}{number}", "u", Lane.NORMAL, b"\x80") for number in range(count)]

    await tasks.create("poison")
    await tasks.submit_many("harmless", new("before", 50))
    (poison,) = new("poison", 1)
    await tasks.submit("poison", poison)
    letters = keys.dead_letters(keys.task_queue("poison"))
    settings = {"queues.max_deliveries": 4}

    for _ in range(8):
        worker = await asyncio.to_thread(
            portal.start_worker, "portal", 3, settings, program=str(program), wait=False
        )
        await eventually(partial(has_died_or_given_up, portal, worker, letters), "it dies or gives up")
        if portal.redis.xlen(letters) == 1:
            break
    await tasks.submit_many("harmless", new("after", 50))

    await eventually(lambda: portal.redis.xlen(keys.task_queue("harmless")) == 0, "the others are done")
    entries: Any = await redis.xrange(letters)
    ((_, letter),) = entries
    cause = letter[b"cause"].decode()
    assert cause == "whoever worked on it died, 4 times"
    state = await tasks.get(poison.task_id)
    assert state is not None
    assert (state.status.value, state.error) == ("failed", cause)
    harmless = await tasks.get_many([task.task_id for task in (*new("before", 50), *new("after", 50))])
    assert {each.status.value for each in harmless if each is not None} == {"completed"}
    assert portal.redis.xlen(keys.dead_letters(keys.task_queue("harmless"))) == 0
    await redis.aclose()
    assert portal["portal-3"].end() == 0


async def test_email_reaches_a_mail_server_and_its_refusals_are_told(
    portal: Cluster, mailbox: tuple[Mailbox, int]
) -> None:
    portal.start_worker("portal", 1)
    admin = await signed_in(portal, role="ADMIN")
    reader, refused = await signed_in(portal), await Player.at(portal["SOCK001"].endpoint)
    await refused.register("refused-player")

    accepted = await submit(
        admin,
        task_type=TaskType.NOTIFICATION,
        channel=Channel.EMAIL,
        message="점검이 있습니다",
        recipients=(reader.name, "refused-player", "nobody-at-all"),
    )

    result = (await ended(admin, accepted.task_id)).result
    assert (result["sentCount"], result["failedCount"]) == (1, 2)
    reasons = {each["userId"]: each["reason"] for each in result["failed"]}
    assert "no such mailbox" in reasons["refused-player"]
    (mail,) = mailbox[0].mails
    assert mail["To"] == f"{reader.name}@example.com"
    assert "점검이 있습니다" in cast(bytes, mail.get_payload(decode=True)).decode()
    for guest in (admin, reader, refused):
        guest.leave()


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
            subprocess.run, command, capture_output=True, text=True, timeout=40, check=False
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
