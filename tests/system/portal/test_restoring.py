"""Tasks in the database: they outlive Redis, and go on where they were."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import RequestFailed
from storage import keys
from storage.tasks import TaskStatus
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.portal import chores
from tests.system.portal.asking import (
    CHUNK_BYTES,
    SUBMIT_FILE,
    Office,
    Player,
    becomes,
    rows,
    send,
    submit,
    view,
)
from tests.system.portal.chores import CHORE, Chore, begun, done, undone

pytestmark = pytest.mark.servers

RESULT_TTL_S = 5


@pytest.fixture(scope="module")
def portal(servers_folder: Path) -> Iterator[Cluster]:
    """A node, a login worker and a portal worker that does chores."""
    settings = {"queues.lease_s": 1, "portal.result_ttl_s": RESULT_TTL_S}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start().start_worker("portal", program=chores.__file__)
        yield cluster


async def written(portal: Cluster, player: Player) -> list[tuple[str, str]]:
    """A player's tasks as the database has them: id and status."""
    asked = "SELECT task_id, status FROM portal_tasks WHERE user_id = :name ORDER BY task_id"
    return [(task_id, status) for task_id, status in await rows(portal, asked, name=player.name)]


async def test_the_end_of_a_task_is_kept_in_redis_for_a_time_and_then_in_the_database_alone(
    portal: Cluster, player: Player
) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=0)
    task = keys.task(accepted.task_id)

    await eventually(lambda: portal.redis.ttl(task) >= 0, "it is over")
    assert portal.redis.ttl(task) <= RESULT_TTL_S
    await eventually(lambda: not portal.redis.exists(task), "Redis has forgotten it")

    seen = await view(player, accepted.task_id)
    assert (seen.status, seen.progress, seen.result["size"]) == ("completed", 100, 0)
    assert portal.redis.scard(keys.user_tasks(player.name)) == 0


async def test_a_redis_that_lost_everything_gets_the_open_tasks_back(
    portal: Cluster, office: Office, player: Player, tmp_path: Path
) -> None:
    content, gate = uuid.uuid4().bytes * 100_000, tmp_path / "gate"
    digest = hashlib.sha256(content).hexdigest()
    upload = await submit(player, **SUBMIT_FILE, file_name="a.bin", size=len(content), sha256=digest)
    await send(player, upload.task_id, content, 0)
    before = await view(player, upload.task_id)
    ids = await office.assign(CHORE, player.name, Chore(str(tmp_path), gate=str(gate)), 8)

    def begun_in_all() -> int:
        return sum(begun(tmp_path, task_id) for task_id in ids)

    await eventually(lambda: begun_in_all() == 4, "as many as the worker takes are begun")

    async def are_written() -> bool:
        return len(await written(portal, player)) == 9

    await becomes(are_written, "all are in the database")
    portal.redis.flushall()
    await eventually(lambda: begun_in_all() >= 8, "the worker has given up what it held, and begun again")
    gate.touch()

    async def are_completed() -> bool:
        found = dict(await written(portal, player))
        return [found[task_id] for task_id in ids] == ["completed"] * 8

    await becomes(are_completed, "all are done")
    assert all(done(tmp_path, task_id) for task_id in ids)
    assert not any(undone(tmp_path, task_id) for task_id in ids)
    await goes_on(player, upload.task_id, content)
    after = await view(player, upload.task_id)
    assert (after.status, after.result["sha256"]) == ("completed", digest)
    assert after.created_at == before.created_at


async def goes_on(player: Player, task_id: str, content: bytes) -> None:
    """Send the rest of an upload, from where its status says."""

    async def is_served() -> bool:
        try:
            return (await view(player, task_id)).upload_offset == CHUNK_BYTES
        except RequestFailed:
            return False

    await becomes(is_served, "the portal is there again")
    for offset in range(CHUNK_BYTES, len(content), CHUNK_BYTES):
        sent = await send(player, task_id, content, offset)
    assert sent.complete

    async def is_over() -> bool:
        return TaskStatus((await view(player, task_id)).status).is_over

    await becomes(is_over, "the file is put together")
