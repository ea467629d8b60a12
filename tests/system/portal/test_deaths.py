"""Tasks whose workers are killed, on each pair of stores: none is lost, none is done twice."""

import asyncio
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from protocol.messages.portal import TaskType
from storage import keys
from tests.conftest import run_redis
from tests.system.cluster import Cluster, Process, eventually
from tests.system.conftest import run_cluster
from tests.system.portal import chores
from tests.system.portal.asking import Office, rows, signed_in, submit
from tests.system.portal.chores import Chore

pytestmark = pytest.mark.servers

MANY = 1000


@pytest.fixture(scope="module", params=["valkey+sqlite", "redis7+mariadb"])
def portal(request: pytest.FixtureRequest, servers_folder: Path) -> Iterator[Cluster]:
    """A node and a login worker; the tests start the portal workers."""
    settings = {
        "queues.lease_s": 0.5,
        "queues.max_deliveries": 8,
        "portal.max_open_tasks": 2 * MANY,
    }
    kind, _, database = request.param.partition("+")
    folder, name = servers_folder / uuid.uuid4().hex, f"test_{uuid.uuid4().hex}"
    if database == "mariadb":
        database_url = request.getfixturevalue("shared_mariadb").create_database(name)
    else:
        database_url = f"sqlite+aiosqlite:///{folder / 'lobbyd.sqlite3'}"
    for redis in run_redis(kind, folder / "redis"):
        for cluster in run_cluster(Cluster(folder / "cluster", redis.url, database_url, settings)):
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
    # Those for which a busy machine's SQLite had no time are in no queue until they are tried again.
    await eventually(lambda: completed(portal, player.name) == MANY, "all are completed")
    assert len({each.task_id for each in accepted}) == MANY
    told = "SELECT COUNT(*), COUNT(DISTINCT message) FROM notifications WHERE user_id = :name"
    assert await rows(portal, told, name=other.name) == [(MANY, MANY)]
    assert portal.redis.xlen(keys.dead_letters(keys.task_queue("notification"))) == 0
    for guest in (player, other):
        guest.leave()
    for number in (1, 2):
        assert portal[f"portal-{number}"].end() == 0


async def test_a_task_that_kills_its_worker_ends_alone_in_the_dead_letters(
    portal: Cluster, office: Office
) -> None:
    await office.tasks.create(chores.POISON)
    before = await office.assign(chores.HARMLESS, "u", Chore(), 50)
    (poison,) = await office.assign(chores.POISON, "u", Chore())
    letters = keys.dead_letters(keys.task_queue(chores.POISON))
    settings = {"queues.max_deliveries": 4}

    for _ in range(8):
        worker = await asyncio.to_thread(
            portal.start_worker, "portal", 3, settings, program=chores.__file__, wait=False
        )
        await eventually(partial(has_died_or_given_up, portal, worker, letters), "it dies or gives up")
        if portal.redis.xlen(letters) == 1:
            break
    after = await office.assign(chores.HARMLESS, "u", Chore(), 50)

    harmless = keys.task_queue(chores.HARMLESS)
    await eventually(lambda: portal.redis.xlen(harmless) == 0, "the others are done")
    entries: Any = await office.redis.xrange(letters)
    ((_, letter),) = entries
    cause = letter[b"cause"].decode()
    assert cause == "whoever worked on it died, 4 times"
    (state,) = await office.states([poison])
    assert (state.status.value, state.error) == ("failed", cause)
    assert {state.status.value for state in await office.states([*before, *after])} == {"completed"}
    assert portal.redis.xlen(keys.dead_letters(harmless)) == 0
    assert portal["portal-3"].end() == 0
