"""What cannot be: each gets its error, and leaves no file, no row and no key behind."""

import uuid
from typing import Any, cast

import pytest

from client import RequestFailed
from protocol.errors import GoodbyeCode
from protocol.messages import Message
from protocol.messages.portal import (
    MAX_INLINE_BYTES,
    MAX_RECIPIENTS,
    CancelTask,
    Channel,
    Submit,
    Submitted,
    TaskType,
    Upload,
)
from protocol.messages.processing import Operation, Source
from storage import keys
from tests.system.cluster import Cluster, eventually
from tests.system.portal.asking import (
    SUBMIT_FILE,
    Player,
    Raw,
    becomes,
    ended,
    files_of,
    rows,
    send,
    signed_in,
    submit,
    view,
)
from tests.system.portal.conftest import QUOTA_BYTES
from tests.system.wire import Wire, envelope

pytestmark = pytest.mark.servers

FILE: dict[str, Any] = {"taskType": "file_upload", "fileName": "a", "size": 1, "fileData": b"x"}
DATA: dict[str, Any] = {"taskType": "data_processing", "source": {"rows": [{"a": 1}]}, "operation": {}}
NOTICE: dict[str, Any] = {"taskType": "notification", "message": "hi", "recipients": ["a"]}


async def leavings(portal: Cluster, player: Player) -> dict[str, object]:
    """What a player's requests have left: in the store of files, in the database, in Redis."""
    await eventually(lambda: portal.redis.llen(keys.PORTAL_UNSAVED) == 0, "all is in the database")
    counts = {
        table: await rows(portal, f"SELECT COUNT(*) FROM {table} WHERE user_id = :name", name=player.name)
        for table in ("portal_tasks", "portal_files", "notifications")
    }
    return {
        **counts,
        "files": [path for path in files_of(portal) if player.name in str(path)],
        "keys": sorted(cast("list[str]", portal.redis.keys(f"portal_*{player.name}*"))),
        "open": portal.redis.smembers(f"portal_user:{player.name}"),
        "backlogs": [portal.redis.xlen(f"portal_queue:{kind.value}") for kind in TaskType],
        "letters": [portal.redis.xlen(f"dead_letters:portal_queue:{kind.value}") for kind in TaskType],
    }


@pytest.mark.parametrize(
    "data",
    [
        {"taskType": "mining"},
        {"taskType": "mining", **{name: value for name, value in FILE.items() if name != "taskType"}},
        {"taskType": ["file_upload"]},
        {},
        {"taskType": "file_upload", "fileName": "a"},
        {"taskType": "data_processing", "source": {}, "operation": {}},
        {"taskType": "data_processing", "source": {"rows": [{"a": 1}]}},
        {"taskType": "notification", "message": "hi"},
        {**FILE, "priority": "urgent"},
        {**FILE, "size": 2},
        {**FILE, "size": "1"},
        {**FILE, "size": -1},
        {**FILE, "size": 1.5},
        {**FILE, "fileData": "x"},
        {**FILE, "size": MAX_INLINE_BYTES + 1, "fileData": bytes(MAX_INLINE_BYTES + 1)},
        {**FILE, "sha256": "0" * 63},
        {**FILE, "sha256": "G" * 64},
        {**FILE, "userId": "../../etc"},
        {**FILE, "userId": "a\r\nb"},
        {**DATA, "source": {"rows": [{"a": [1]}]}},
        {**DATA, "source": {"rows": []}},
        {**DATA, "source": {"fileId": "../../etc/passwd"}},
        {**DATA, "source": {"fileId": "task_1_a_1", "rows": [{"a": 1}]}},
        {**DATA, "source": {"fileId": "task_1_a_1", "format": "xlsx"}},
        {**DATA, "operation": {"limit": "ten"}},
        {**DATA, "operation": {"limit": 0}},
        {**DATA, "operation": {"groupBy": ["a"]}},
        {**DATA, "operation": {"filter": [{"column": "a", "op": "eval", "value": "1"}]}},
        {**DATA, "operation": {"filter": [{"column": "a", "op": "in", "value": 1}]}},
        {**DATA, "operation": {"aggregate": [{"function": "percentile", "column": "a", "percentile": 101}]}},
        {**NOTICE, "message": ""},
        {**NOTICE, "message": "x" * 2001},
        {**NOTICE, "channel": "pigeon"},
        {**NOTICE, "recipients": "everybody"},
        {**NOTICE, "recipients": [""]},
        {**NOTICE, "recipients": ["a"] * (MAX_RECIPIENTS + 1)},
    ],
    ids=lambda data: repr(data)[:60],
)
async def test_a_request_that_is_wrong_in_itself(
    portal: Cluster, player: Player, data: dict[str, Any]
) -> None:
    before = await leavings(portal, player)

    with pytest.raises(RequestFailed) as refused:
        await player.ask(cast(Message, Raw(data)), uuid.uuid4().hex)

    assert refused.value.code == "INVALID_REQUEST"
    assert await leavings(portal, player) == before
    await player.is_served()


@pytest.mark.parametrize(
    "name",
    [
        *("../up", "a/b", "a\\b", "..", ".", "", "/etc/passwd", "..\\..\\boot.ini"),
        *("a\0b", "a.txt\0.png", "a\nb", "a\x7f", "a\x85"),
        *(" a", "a ", "\u3000a", "x" * 256, "가" * 256),
        *("gpj\u202eexe.", "\u2066a", "a\u2028b", "\ufeffa"),
    ],
    ids=ascii,
)
async def test_a_file_with_a_trick_in_its_name(portal: Cluster, player: Player, name: str) -> None:
    before = await leavings(portal, player)

    with pytest.raises(RequestFailed) as refused:
        await player.ask(cast(Message, Raw({**FILE, "fileName": name})))

    assert refused.value.code == "INVALID_REQUEST"
    assert "fileName" in refused.value.message
    assert await leavings(portal, player) == before


@pytest.mark.parametrize(
    "name", ["...", "／etc／passwd", "%2e%2e%2f", "가" * 255, "👨‍👩‍👧.png", "CON", "-rf", "$(ls)"]
)
async def test_a_file_with_a_strange_name_is_just_called_so(
    portal: Cluster, player: Player, name: str
) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name=name, size=1, file_data=b"x")

    result = (await ended(player, accepted.task_id)).result

    assert result["fileName"] == name
    assert result["path"] == f"files/{player.name}/{accepted.task_id}"


async def test_a_file_with_another_hash(portal: Cluster, player: Player) -> None:
    before = await leavings(portal, player)
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=3, sha256="0" * 64, file_data=b"abc")

    update = await ended(player, accepted.task_id)

    assert update.status == "failed"
    assert "SHA-256" in str(update.error)
    await leaves_its_state_alone(portal, player, before, accepted.task_id)


async def test_chunks_at_the_wrong_offset_or_beyond_the_end(portal: Cluster, player: Player) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=10)
    await send(player, accepted.task_id, b"12345", 0)
    before = await leavings(portal, player)

    for offset in (4, 6, 10, 11, 2**62):
        refused = await player.refused(
            Upload(task_id=accepted.task_id, offset=offset, chunk=b"x"), "WRONG_OFFSET"
        )
        assert "offset 5" in refused.message
    beyond = Upload(task_id=accepted.task_id, offset=5, chunk=b"6789ab")
    assert "10 bytes" in (await player.refused(beyond, "INVALID_REQUEST")).message

    assert await leavings(portal, player) == before
    assert (await send(player, accepted.task_id, b"1234567890", 5)).complete
    assert (await ended(player, accepted.task_id)).status == "completed"


async def test_more_than_the_quota(portal: Cluster, player: Player) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=QUOTA_BYTES - 10)
    before = await leavings(portal, player)

    for size in (11, QUOTA_BYTES, 2**63):
        await player.refused(Submit(**SUBMIT_FILE, file_name="b", size=size), "QUOTA_EXCEEDED")
    along = Submit(**SUBMIT_FILE, file_name="b", size=11, file_data=bytes(11))
    await player.refused(along, "QUOTA_EXCEEDED")

    assert await leavings(portal, player) == before
    await player.ask(CancelTask(task_id=accepted.task_id))
    stored = cast(Submitted, await player.ask(along))
    assert (await ended(player, stored.task_id)).status == "completed"


async def test_a_result_beyond_the_quota(portal: Cluster, player: Player) -> None:
    content = b"number,text\n" + b"".join(b"%d,%s\n" % (number, b"x" * 300) for number in range(5000))
    accepted = await submit(player, **SUBMIT_FILE, file_name="rows.csv", size=len(content))
    for offset in range(0, len(content), 700_000):
        await send(player, accepted.task_id, content, offset)
    file_id = (await ended(player, accepted.task_id)).task_id
    before = await leavings(portal, player)

    processing = await submit(
        player, task_type=TaskType.DATA_PROCESSING, source=Source(file_id=file_id), operation=Operation()
    )

    update = await ended(player, processing.task_id)
    assert "no room for the result" in str(update.error)
    await leaves_its_state_alone(portal, player, before, processing.task_id)


async def leaves_its_state_alone(
    portal: Cluster, player: Player, before: dict[str, object], task_id: str
) -> None:
    """See that nothing is left of a task but that it failed, which its user can ask for."""

    async def is_so() -> bool:
        now = await leavings(portal, player)
        tasks = await rows(portal, "SELECT status FROM portal_tasks WHERE task_id = :id", id=task_id)
        now["keys"] = [key for key in cast("list[str]", now["keys"]) if task_id not in key]
        return tasks == [("failed",)] and {**now, "portal_tasks": 0} == {**before, "portal_tasks": 0}

    await becomes(is_so, "nothing is left but its state")
    assert (await view(player, task_id)).status == "failed"


@pytest.mark.parametrize("count", [1025, 500_000, 1_000_000])
async def test_a_million_recipients_cost_the_connection(portal: Cluster, player: Player, count: int) -> None:
    before = await leavings(portal, player)

    wire = await Wire.greeted(portal["SOCK001"].endpoint)
    resumed = await wire.ask("auth.resume", {"accessToken": player.access_token}, 2)
    assert resumed["status"] == 200

    wire.send(envelope("portal.submit", 3, {**NOTICE, "recipients": ["a"] * count}))

    assert (await wire.goodbye())["code"] == GoodbyeCode.PROTOCOL_ERROR.code
    assert await leavings(portal, player) == before


async def test_what_takes_a_role(portal: Cluster, player: Player) -> None:
    before = await leavings(portal, player)
    notice: dict[str, Any] = {"task_type": TaskType.NOTIFICATION, "message": "hi", "recipients": ("a",)}

    for more in ({"groups": ("VIP_Users",)}, {"channel": Channel.EMAIL}, {"user_id": "somebody"}):
        await player.refused(Submit(**notice, **more), "FORBIDDEN")
    await player.refused(Submit(**SUBMIT_FILE, file_name="a", size=0, user_id="somebody"), "FORBIDDEN")

    assert await leavings(portal, player) == before


async def test_who_has_the_role_may_ask_for_others(portal: Cluster, player: Player) -> None:
    server = await signed_in(portal, role="GAME_SERVER")

    accepted = await submit(server, **SUBMIT_FILE, file_name="a", size=0, user_id=player.name)

    assert (await ended(player, accepted.task_id)).status == "completed"
    server.leave()
