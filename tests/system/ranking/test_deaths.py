"""Ranking workers, and the Redis of their queues, that die between each two of their steps, by SIGKILL: every
accepted score counts once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from client import Player
from protocol.envelope import queue_create
from protocol.messages.ranking import BoardType, ScoreAccepted
from protocol.queues import QueueType
from storage import keys
from storage.boards import Board
from storage.connections import connect
from storage.queues import QueueServer
from storage.scores import Submission, Submissions, decode_score
from storage.servers import now_ms
from storage.tickets import Record
from tests.servers import RedisServer
from tests.storage.hall import Hall, Model, accepted, opened
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_cluster
from tests.system.guest import PASSWORD
from tests.system.ranking.playing import score_of

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

KILLING = """
import os, pkgutil, runpy, signal
owner, _, name = "{step}".rpartition(".")
kept = getattr(pkgutil.resolve_name(owner), name)
def kill(*given, **named):
    setattr(pkgutil.resolve_name(owner), name, kept)
    os.kill({redis}, signal.SIGKILL)
    return kept(*given, **named)
setattr(pkgutil.resolve_name(owner), name, kill)
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


@pytest.fixture
def fragile(request: pytest.FixtureRequest, tmp_path: Path, own_redis: RedisServer) -> Iterator[Cluster]:
    """A cluster on a Redis that may be killed."""
    database_url = request.getfixturevalue("sqlite_url" if own_redis.kind == "valkey" else "mariadb_url")
    yield from run_cluster(Cluster(tmp_path / "cluster", own_redis.url, database_url))


async def make_queue(cluster: Cluster) -> None:
    """Make the queue of accepted scores, and let those who die later take what those before have left."""
    cluster.settings["queues.max_deliveries"] = 100
    message = queue_create("ranking", keys.SUBMITTED_SCORES, QueueType.JOB, max_size=100, expire_s=600)
    async with connect(str(cluster.settings["redis.url"])) as redis:
        await QueueServer(redis).create(message)


async def accept_ten(hall: Hall, model: Model, first: int, now: int) -> None:
    """Put ten scores into the queue that have numbers from `first` on."""
    submissions = Submissions(hall.wire)
    for number in range(first, first + 10):
        score = accepted(number, f"u{number % 7}", number * 7 % 11, now - number)
        model.add(score)
        await submissions.accept(Submission(score, Record(score.task_id, 600)))


async def agree(hall: Hall, model: Model, now: int) -> None:
    """See that SQL has each score once, and the boards the best of them."""
    assert await hall.kept() == len(model)
    periods = hall.calendar.periods(now)
    for board_type in BoardType:
        for game_type in (None, "suika"):
            board = Board(periods[board_type], game_type)
            assert await hall.places(board) == model.places(board.period, game_type)


async def test_scores_count_once_wherever_their_worker_dies(cluster: Cluster, hall: Hall) -> None:
    model, now = Model(), now_ms()
    await make_queue(cluster)
    cluster.start_worker("status")
    for index, step in enumerate(STEPS.values()):
        program = cluster.folder / f"dying{index}.py"
        program.write_text(DYING.format(step=step))
        await accept_ten(hall, model, 10 * index, now)
        dying = cluster.start_worker("ranking", 1, program=str(program), wait=False)
        assert await asyncio.to_thread(dying.wait) == -9
        assert cluster.redis.xlen(keys.SUBMITTED_SCORES) == len(model)
    healthy = cluster.start_worker("ranking", 2, {"queues.lease_s": 0.5})
    await eventually(lambda: not cluster.redis.xlen(keys.SUBMITTED_SCORES), "every score is kept")
    assert healthy.end() == 0
    await agree(hall, model, now)


async def test_scores_count_once_wherever_their_queue_dies(fragile: Cluster, own_redis: RedisServer) -> None:
    model, now = Model(), now_ms()
    urls = [str(fragile.settings[name]) for name in ("redis.url", "database.url")]
    await make_queue(fragile)
    fragile.start_worker("status")
    for index, step in enumerate(STEPS.values()):
        # A crash of the process alone, not of the machine.
        fragile.redis.config_set("appendfsync", "always")
        program = fragile.folder / f"killing{index}.py"
        program.write_text(KILLING.format(step=step, redis=own_redis.pid))
        async with opened(*urls) as hall:
            await accept_ten(hall, model, 10 * index, now)
        worker = fragile.start_worker("ranking", 1, {"queues.lease_s": 0.5}, program=str(program), wait=False)
        await eventually(lambda: not own_redis.is_running, f"Redis is killed {step}")
        own_redis.kill()
        await asyncio.to_thread(own_redis.start)
        await eventually(lambda: not fragile.redis.xlen(keys.SUBMITTED_SCORES), "every score is kept")
        assert await asyncio.to_thread(worker.end) == 0
    async with opened(*urls) as hall:
        await agree(hall, model, now)


async def test_a_score_is_accepted_once_where_its_worker_dies_before_it_answers(
    cluster: Cluster, hall: Hall
) -> None:
    cluster.settings["queues.lease_s"] = 0.5
    program = cluster.folder / "dying.py"
    program.write_text(DYING.format(step="workers.ranking.submitting.ScoreAccepted"))
    dying = cluster.start().start_worker("ranking", 1, program=str(program))
    async with Player([node.endpoint for node in cluster.nodes]) as player:
        await player.register("ada", PASSWORD, "ada@example.com", "ada")
        await player.sign_in("ada", PASSWORD)
        asked = asyncio.create_task(player.request(score_of(5)))
        assert await asyncio.to_thread(dying.wait) == -9
        ((_, fields),) = await hall.wire.execute_command("XRANGE", keys.SUBMITTED_SCORES, "-", "+")
        cluster.start_worker("ranking", 2)
        answer = cast(ScoreAccepted, await asked)
        assert answer.task_id == decode_score(fields[1]).task_id
        await eventually(lambda: not cluster.redis.xlen(keys.SUBMITTED_SCORES), "the score is kept")
    assert await hall.kept() == 1
