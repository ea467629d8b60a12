"""Slow work as players ask for it: each change of a task is seen as it happens, bad input leaves nothing."""

import hashlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from client import ConnectionLost, RequestFailed
from client.connection import DECLARED
from protocol.errors import GoodbyeCode
from protocol.messages import REQUESTS, Message
from protocol.messages.portal import (
    CancelTask,
    Channel,
    ListNotifications,
    Notification,
    NotificationList,
    ReadNotifications,
    Status,
    Submit,
    Submitted,
    TaskType,
    TaskUpdate,
    TaskView,
    Upload,
    Uploaded,
)
from protocol.messages.processing import Aggregate, Aggregation, Comparison, Filter, Operation, Sort, Source
from storage import keys
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.guest import Guest

pytestmark = pytest.mark.servers

CHUNK_BYTES = 700_000
SUBMIT_FILE: dict[str, Any] = {"task_type": TaskType.FILE_UPLOAD}


@pytest.fixture(scope="module")
def portal(servers_folder: Path) -> Iterator[Cluster]:
    """A node, a login worker and two portal workers."""
    settings = {"portal.quota_bytes": 3_000_000, "queues.lease_s": 1}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start()
        for number in (1, 2):
            cluster.start_worker("portal", number)
        yield cluster


@pytest.fixture
async def player(portal: Cluster) -> "AsyncIterator[Player]":
    """Somebody who is signed in; the name is `player.name`."""
    guest = await signed_in(portal)
    yield guest
    guest.leave()


class Raw(dict[str, Any]):
    """The data of a `portal.submit` that no Struct could hold."""


@pytest.fixture(autouse=True)
def raw_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[Any, Any]", DECLARED), Raw, REQUESTS["portal.submit"])


class Player(Guest):
    """A guest with a name."""

    name = ""


async def signed_in(portal: Cluster, *, role: str | None = None) -> Player:
    player = await Player.at(portal["SOCK001"].endpoint)
    player.name = f"player-{uuid.uuid4().hex[:12]}"
    await player.register(player.name)
    if role is not None:
        with database(portal) as connection:
            connection.execute("UPDATE users SET role = ? WHERE user_id = ?", (role, player.name))
        portal.redis.delete(keys.user(player.name))
    await player.sign_in(player.name)
    return player


def database(portal: Cluster) -> sqlite3.Connection:
    path = str(portal.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    return sqlite3.connect(path, timeout=10)


def files_of(portal: Cluster) -> list[Path]:
    """Everything that lies in the store of files."""
    folder = Path(str(portal.settings["portal.storage_url"]))
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def submit(guest: Guest, key: str | None = None, **data: Any) -> Submitted:
    return cast(Submitted, await guest.ask(Submit(**data), key))


async def ended(guest: Guest, task_id: str) -> TaskUpdate:
    """Wait until a task is over. Answers how it ended."""
    number = 0
    while True:
        number += 1
        update = await guest.hear(TaskUpdate, number)
        if update.task_id == task_id and update.status not in {"pending", "processing"}:
            return update


def heard_of(guest: Guest, task_id: str) -> list[str]:
    """The statuses that were told, each once, in order."""
    told = [update.status for update in guest.all(TaskUpdate) if update.task_id == task_id]
    return list(dict.fromkeys(told))


async def view(guest: Guest, task_id: str) -> TaskView:
    return cast(TaskView, await guest.ask(Status(task_id=task_id)))


class TestAFile:
    async def test_that_comes_along_is_stored(self, portal: Cluster, player: Player) -> None:
        content = b"hello, portal\n" * 100

        accepted = await submit(
            player, **SUBMIT_FILE, file_name="인사.txt", size=len(content), file_data=content
        )
        update = await ended(player, accepted.task_id)

        assert heard_of(player, accepted.task_id) == ["processing", "completed"]
        digest = hashlib.sha256(content).hexdigest()
        assert update.result["sha256"] == digest
        assert update.result["contentType"] == "text/plain"
        seen = await view(player, accepted.task_id)
        assert (seen.status, seen.progress, seen.result) == ("completed", 100, update.result)
        stored = Path(str(portal.settings["portal.storage_url"]), update.result["path"])
        assert stored.read_bytes() == content

    async def test_comes_in_chunks_over_two_connections(self, portal: Cluster, player: Player) -> None:
        content = uuid.uuid4().bytes * 100_000
        digest = hashlib.sha256(content).hexdigest()
        accepted = await submit(player, **SUBMIT_FILE, file_name="game.png", size=len(content), sha256=digest)
        assert accepted.upload_offset == 0

        sent = await self._send(player, accepted.task_id, content, 0)
        assert sent == Uploaded(upload_offset=CHUNK_BYTES, complete=False)
        assert await self._send(player, accepted.task_id, content, 0) == sent
        off_by_one = Upload(task_id=accepted.task_id, offset=CHUNK_BYTES + 1, chunk=b"x")
        refused = await player.refused(off_by_one, "WRONG_OFFSET")
        assert str(CHUNK_BYTES) in refused.message
        assert (await view(player, accepted.task_id)).upload_offset == CHUNK_BYTES
        for offset in range(CHUNK_BYTES, len(content), CHUNK_BYTES):
            last = await self._send(player, accepted.task_id, content, offset)

        assert last == Uploaded(upload_offset=len(content), complete=True)
        assert (await ended(player, accepted.task_id)).result["sha256"] == digest

    async def test_with_another_hash_leaves_nothing(self, portal: Cluster, player: Player) -> None:
        before = files_of(portal)
        accepted = await submit(
            player, **SUBMIT_FILE, file_name="a.txt", size=3, sha256="0" * 64, file_data=b"abc"
        )

        update = await ended(player, accepted.task_id)

        assert update.status == "failed"
        assert "SHA-256" in str(update.error)
        await eventually(lambda: files_of(portal) == before, "the file is removed")
        with database(portal) as connection:
            found = connection.execute("SELECT COUNT(*) FROM portal_files WHERE user_id = ?", (player.name,))
            assert found.fetchone() == (0,)

    @pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "..", "", "a\0b", "x" * 256, " a"])
    async def test_with_a_trick_in_its_name_is_refused(
        self, portal: Cluster, player: Player, name: str
    ) -> None:
        data = {"taskType": "file_upload", "fileName": name, "size": 1, "fileData": b"x"}
        before = files_of(portal)

        with pytest.raises(RequestFailed) as refused:
            await player.ask(cast(Message, Raw(data)))

        assert refused.value.code == "INVALID_REQUEST"
        assert files_of(portal) == before

    async def test_beyond_the_quota_is_refused(self, player: Player) -> None:
        data = Submit(**SUBMIT_FILE, file_name="a", size=3_000_001)
        await player.refused(data, "QUOTA_EXCEEDED")

    async def test_is_one_however_often_its_request_is_repeated(
        self, portal: Cluster, player: Player
    ) -> None:
        key = uuid.uuid4().hex
        data: dict[str, Any] = {**SUBMIT_FILE, "file_name": "a", "size": 1, "file_data": b"x"}

        first = await submit(player, key, **data)
        again = await submit(player, key, **data)

        assert again == first
        with database(portal) as connection:
            found = connection.execute("SELECT COUNT(*) FROM portal_files WHERE user_id = ?", (player.name,))
            assert found.fetchone() == (1,)

    async def test_of_another_is_not_seen(self, portal: Cluster, player: Player) -> None:
        accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=10)
        stranger = await signed_in(portal)

        await stranger.refused(Status(task_id=accepted.task_id), "TASK_NOT_FOUND")
        await stranger.refused(Upload(task_id=accepted.task_id, offset=0, chunk=b"x"), "TASK_NOT_FOUND")
        await stranger.refused(CancelTask(task_id=accepted.task_id), "TASK_NOT_FOUND")
        stranger.leave()

    async def test_that_is_given_up_leaves_nothing(self, portal: Cluster, player: Player) -> None:
        before = files_of(portal)
        accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=10)
        await player.ask(Upload(task_id=accepted.task_id, offset=0, chunk=b"x"))

        await player.ask(CancelTask(task_id=accepted.task_id))

        assert (await ended(player, accepted.task_id)).status == "cancelled"
        await player.refused(CancelTask(task_id=accepted.task_id), "ALREADY_FINISHED")
        await player.refused(Upload(task_id=accepted.task_id, offset=1, chunk=b"x"), "ALREADY_FINISHED")
        assert files_of(portal) == before

    async def _send(self, player: Player, task_id: str, content: bytes, offset: int) -> Uploaded:
        chunk = content[offset : offset + CHUNK_BYTES]
        return cast(Uploaded, await player.ask(Upload(task_id=task_id, offset=offset, chunk=chunk)))


SCORES: list[dict[str, str | int | float | bool | None]] = [
    {"user": f"u{number}", "score": number, "region": "ab"[number % 2]} for number in range(100)
]


class TestDataProcessing:
    async def _process(self, player: Player, source: Source, operation: Operation) -> TaskUpdate:
        accepted = await submit(
            player, task_type=TaskType.DATA_PROCESSING, source=source, operation=operation
        )
        return await ended(player, accepted.task_id)

    async def test_of_rows_that_come_along(self, player: Player) -> None:
        operation = Operation(
            filter=(Filter(column="score", op=Comparison.GE, value=50),),
            group_by=("region",),
            aggregate=(
                Aggregate(function=Aggregation.COUNT),
                Aggregate(function=Aggregation.PERCENTILE, column="score", percentile=50),
            ),
            sort=(Sort(column="region", descending=True),),
        )

        update = await self._process(player, Source(rows=SCORES), operation)

        assert update.result == {
            "rowCount": 2,
            "columns": ["region", "count", "score_p50"],
            "rows": [
                {"region": "b", "count": 25, "score_p50": 75.0},
                {"region": "a", "count": 25, "score_p50": 74.0},
            ],
        }

    async def test_of_a_file_with_a_result_that_is_a_file(self, portal: Cluster, player: Player) -> None:
        content = b"number,text\n" + b"".join(b"%d,row\n" % number for number in range(5000))
        accepted = await submit(
            player, **SUBMIT_FILE, file_name="rows.csv", size=len(content), file_data=content
        )
        file_id = (await ended(player, accepted.task_id)).result["fileId"]

        operation = Operation(sort=(Sort(column="number", descending=True),))
        update = await self._process(player, Source(file_id=file_id), operation)

        assert update.result["rowCount"] == 5000
        path = Path(str(portal.settings["portal.storage_url"]), update.result["resultFile"]["path"])
        assert path.read_text().splitlines()[1] == "4999,row"

    async def test_that_cannot_be_done_says_why(self, player: Player) -> None:
        operation = Operation(sort=(Sort(column="^.*$"),))

        update = await self._process(player, Source(rows=SCORES), operation)

        assert update.status == "failed"
        assert "ColumnNotFound" in str(update.error)

    async def test_of_a_bomb_ends_in_words(self, portal: Cluster, player: Player) -> None:
        bomb = b"\x1f\x8b" + bytes(100)
        accepted = await submit(player, **SUBMIT_FILE, file_name="rows.csv", size=len(bomb), file_data=bomb)
        file_id = (await ended(player, accepted.task_id)).result["fileId"]

        update = await self._process(player, Source(file_id=file_id), Operation(limit=1))

        assert update.error == "Compressed files are not taken: unpack it first."

    async def test_of_another_users_file_is_refused(self, portal: Cluster, player: Player) -> None:
        accepted = await submit(player, **SUBMIT_FILE, file_name="a.csv", size=1, file_data=b"a")
        await ended(player, accepted.task_id)
        stranger = await signed_in(portal)

        update = await self._process(stranger, Source(file_id=accepted.task_id), Operation(limit=1))

        assert update.error == f"You have no file {accepted.task_id}."
        stranger.leave()


class TestNotifications:
    async def test_reach_who_is_there_and_wait_for_who_is_not(self, portal: Cluster, player: Player) -> None:
        there, away = await signed_in(portal), await Player.at(portal["SOCK001"].endpoint)
        away.name = f"away-{uuid.uuid4().hex[:12]}"
        await away.register(away.name)

        accepted = await submit(
            player,
            task_type=TaskType.NOTIFICATION,
            message="보스가 나타났다",
            recipients=(there.name, away.name, "nobody-at-all"),
        )

        told = await there.hear(Notification)
        assert (told.message, told.from_, told.id) == ("보스가 나타났다", player.name, accepted.task_id)
        assert (await ended(player, accepted.task_id)).result == {
            "sentCount": 2,
            "failedCount": 1,
            "failed": [{"userId": "nobody-at-all", "reason": "no such user"}],
        }
        tokens = await away.sign_in(away.name)
        back = await Guest.at(portal["SOCK001"].endpoint)
        assert (await back.resume(tokens.access_token)).unread_notifications == 1
        listed = cast(NotificationList, await back.ask(ListNotifications()))
        assert [each.message for each in listed.notifications] == ["보스가 나타났다"]
        await back.ask(ReadNotifications(ids=[accepted.task_id]))
        listed = cast(NotificationList, await back.ask(ListNotifications()))
        assert (listed.unread, listed.notifications[0].read) == (0, True)
        for guest in (there, back):
            guest.leave()

    async def test_of_groups_and_email_take_a_role(self, player: Player) -> None:
        forbidden: list[dict[str, Any]] = [{"groups": ("VIP_Users",)}, {"channel": Channel.EMAIL}]
        for more in forbidden:
            data = Submit(task_type=TaskType.NOTIFICATION, message="hi", recipients=("a",), **more)
            await player.refused(data, "FORBIDDEN")

    async def test_of_a_group_reach_its_members(self, portal: Cluster, player: Player) -> None:
        admin = await signed_in(portal, role="ADMIN")
        with database(portal) as connection:
            connection.execute("INSERT INTO group_members VALUES (?, ?, ?)", ("VIP_Users", player.name, 0))

        accepted = await submit(
            admin, task_type=TaskType.NOTIFICATION, message="hi", groups=("VIP_Users", "no-such-group")
        )

        assert (await player.hear(Notification)).from_ == admin.name
        update = await ended(admin, accepted.task_id)
        assert (update.result["sentCount"], update.result["failedCount"]) == (1, 1)
        admin.leave()

    async def test_of_half_a_million_recipients_cost_the_connection(self, portal: Cluster) -> None:
        crowd = await signed_in(portal)
        data = {"taskType": "notification", "message": "hi", "recipients": ["a"] * 500_000}

        with pytest.raises(ConnectionLost):
            await crowd.ask(cast(Message, Raw(data)))

        goodbye = (await crowd.gone()).goodbye
        assert goodbye is not None
        assert goodbye.code == GoodbyeCode.PROTOCOL_ERROR.code


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        "data",
        [
            {"taskType": "mining"},
            {},
            {"taskType": "file_upload", "fileName": "a"},
            {"taskType": "file_upload", "fileName": "a", "size": 2, "fileData": b"x"},
            {"taskType": "data_processing", "source": {}, "operation": {}},
            {"taskType": "data_processing", "source": {"rows": [{"a": 1}]}},
            {"taskType": "notification", "message": "hi"},
            {"taskType": "notification", "message": "hi", "recipients": ["a"] * 1001},
        ],
    )
    async def test_is_refused(self, player: Player, data: dict[str, Any]) -> None:
        with pytest.raises(RequestFailed) as refused:
            await player.ask(cast(Message, Raw(data)))
        assert refused.value.code == "INVALID_REQUEST"

    async def test_for_another_user_takes_a_role(self, portal: Cluster, player: Player) -> None:
        data: dict[str, Any] = {**SUBMIT_FILE, "file_name": "a", "size": 0}
        await player.refused(Submit(**data, user_id="somebody"), "FORBIDDEN")
        server = await signed_in(portal, role="GAME_SERVER")

        accepted = await submit(server, **data, user_id=player.name)

        assert (await ended(player, accepted.task_id)).status == "completed"
        server.leave()


async def test_a_task_is_in_the_database_when_redis_has_forgotten_it(portal: Cluster, player: Player) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=0)
    await ended(player, accepted.task_id)

    def is_written() -> bool:
        with database(portal) as connection:
            found = connection.execute(
                "SELECT status FROM portal_tasks WHERE task_id = ?", (accepted.task_id,)
            )
            return bool(found.fetchone() == ("completed",))

    await eventually(is_written, "the task is in the database")
    portal.redis.delete(keys.task(accepted.task_id))

    seen = await view(player, accepted.task_id)
    assert (seen.status, seen.result["size"]) == ("completed", 0)
