"""Ranking workers that die between each two of their steps, by SIGKILL: every accepted score counts once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from protocol.envelope import queue_create
from protocol.messages.ranking import BoardType
from protocol.queues import QueueType
from storage import keys
from storage.boards import Board
from storage.connections import connect
from storage.queues import QueueServer
from storage.scores import Submission, Submissions
from storage.servers import now_ms
from storage.tickets import Record
from tests.storage.hall import Hall, Model, accepted, opened
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_cluster

pytestmark = pytest.mark.servers

STEPS = {
    "before SQL": "workers.ranking.keeping.Keeping.keep",
    "between SQL and the boards": "workers.ranking.keeping.Keeping._raise",
    "between the boards and the friends": "storage.friends.Friends.overtake",
    "between the friends and the telling": "workers.ranking.keeping.Keeping._tell",
    "before the entries are acknowledged": "storage.queues.outbox.Outbox.acknowledge",
}

DYING = """
import os, pkgutil, runpy, signal
owner, _, name = "{step}".rpartition(".")
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(pkgutil.resolve_name(owner), name, die)
runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(
    params=[
        pytest.param(("valkey_url", "sqlite_url"), id="valkey-sqlite"),
        pytest.param(("redis7_url", "mariadb_url"), id="redis7-mariadb"),
    ]
)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    redis_url, database_url = (request.getfixturevalue(name) for name in request.param)
    yield from run_cluster(Cluster(tmp_path / "cluster", redis_url, database_url))


@pytest.fixture
async def hall(cluster: Cluster) -> AsyncIterator[Hall]:
    urls = (str(cluster.settings[name]) for name in ("redis.url", "database.url"))
    async with opened(*urls) as hall:
        yield hall


async def test_scores_count_once_wherever_their_worker_dies(cluster: Cluster, hall: Hall) -> None:
    # Those who die later may take what those who died before have left.
    cluster.settings["queues.max_deliveries"] = 100
    submissions, model, now = Submissions(hall.wire), Model(), now_ms()
    message = queue_create("ranking", keys.SUBMITTED_SCORES, QueueType.JOB, max_size=100, expire_s=600)
    async with connect(str(cluster.settings["redis.url"])) as redis:
        await QueueServer(redis).create(message)
    cluster.start_worker("status")
    for index, step in enumerate(STEPS.values()):
        program = cluster.folder / f"dying{index}.py"
        program.write_text(DYING.format(step=step))
        for number in range(10 * index, 10 * index + 10):
            score = accepted(number, f"u{number % 7}", number * 7 % 11, now - number)
            model.add(score)
            await submissions.accept(Submission(score, Record(score.task_id, 600)))
        dying = cluster.start_worker("ranking", 1, program=str(program), wait=False)
        assert await asyncio.to_thread(dying.wait) == -9
        assert cluster.redis.xlen(keys.SUBMITTED_SCORES) == len(model)
    healthy = cluster.start_worker("ranking", 2, {"queues.lease_s": 0.5})
    await eventually(lambda: not cluster.redis.xlen(keys.SUBMITTED_SCORES), "every score is kept")
    assert healthy.end() == 0
    assert await hall.kept() == len(model)
    periods = hall.calendar.periods(now)
    for board_type in BoardType:
        for game_type in (None, "suika"):
            board = Board(periods[board_type], game_type)
            assert await hall.places(board) == model.places(board.period, game_type)
