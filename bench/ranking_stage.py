"""The processing of accepted scores alone: how many a second become durable and visible, beside the limit.

Ours: scores lie in the queue, and ranking workers take them. The limit writes the same rows in batches of the
same size and then the same members to as many sorted sets in pipelines, and does nothing else: no queue, no
acknowledgement, no ranks, nobody is told.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.ranking_data import GAME, bare_board, batches, scores
from bench.system import System
from protocol.codec import encode
from storage import keys
from storage.connections import connect, connect_wire
from storage.database import Database
from storage.periods import ALL, Calendar
from storage.scores import Accepted
from storage.wire import Command, Wire

BATCH = 1000
BOARDS = 8
POLL_S = 0.02

_SCORES = (
    "INSERT INTO scores (task_id, user_id, game_type, difficulty, score, submitted_at) "
    "VALUES (:task_id, :user_id, :game_type, :difficulty, :score, :submitted_at)"
)
_BEST = "INSERT INTO best_scores (period, game_type, user_id, score, reached_at) VALUES (:p, :g, :u, :s, :r) "
_BETTER = {
    "mysql": "ON DUPLICATE KEY UPDATE score = GREATEST(score, VALUES(score))",
    "sqlite": "ON CONFLICT DO UPDATE SET score = max(score, excluded.score)",
}


async def processed_per_s(system: System, count: int, players: int, seed: int) -> float:
    """Queue so many scores while nobody takes them, then let the workers that there are take them."""
    pids = [pid for name, pid in system.processes.pids.items() if name.startswith("ranking-")]
    async with connect(system.redis_url) as redis:
        for pid in pids:
            _signal(pid, "STOP")
        for batch in batches(list(scores(count, players, seed)), BATCH):
            pipeline = redis.pipeline(transaction=False)
            for score in batch:
                pipeline.execute_command("XADD", keys.SUBMITTED_SCORES, "*", "m", encode(score))
            await pipeline.execute()
        start_s = time.perf_counter()
        for pid in pids:
            _signal(pid, "CONT")
        while await redis.xlen(keys.SUBMITTED_SCORES):  # noqa: ASYNC110 - another process takes them
            await asyncio.sleep(POLL_S)
        return count / (time.perf_counter() - start_s)


def _signal(pid: int, how: str) -> None:
    os.kill(pid, getattr(signal, f"SIG{how}"))


async def bare_per_s(system: System, processes: int, count: int, players: int, seed: int) -> float:
    """The limit, with as many processes as there are workers, each with its part of the scores."""
    part = count // processes
    arguments = [system.redis_url, system.database_url, str(part), str(players)]
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.ranking_stage", *arguments, str(seed + number)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        await process.stdout.readline()
    start_s = time.perf_counter()
    await asyncio.gather(*(process.communicate(b"\n") for process in running))
    return part * processes / (time.perf_counter() - start_s)


async def bare(redis_url: str, database_url: str, count: int, players: int, seed: int) -> None:
    """One process of the limit: begins when told on stdin, ends when all is written."""
    wire, database = connect_wire(redis_url), Database(database_url, time_limit_s=60.0)
    given = list(batches(list(scores(count, players, seed)), BATCH))
    await wire.execute_command("PING")
    await database.read(lambda connection: connection.execute(text("SELECT 1")))
    print("ready", flush=True)
    sys.stdin.readline()
    day = Calendar("UTC").periods(given[0][0].submitted_ms).day.name
    for batch in given:
        await _write_rows(database, batch, day)
        await _write_members(wire, batch)
    await wire.aclose()
    await database.close()


async def _write_rows(database: Database, batch: Sequence[Accepted], day: str) -> None:
    ordered = sorted(batch, key=lambda score: score.task_id)
    rows = [
        {"task_id": each.task_id, "user_id": each.user_id, "game_type": GAME, "difficulty": "medium",
         "score": each.score, "submitted_at": each.submitted_ms}
        for each in ordered
    ]  # fmt: skip
    bests: list[dict[str, Any]] = [
        {"p": period, "g": GAME, "u": each.user_id, "s": each.score, "r": each.submitted_ms}
        for period in sorted((ALL, day))
        for each in sorted(batch, key=lambda score: score.user_id)
    ]

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text(_SCORES), rows)
        await connection.execute(text(_BEST + _BETTER[connection.dialect.name]), bests)

    await database.transaction(work)


async def _write_members(wire: Wire, batch: Sequence[Accepted]) -> None:
    commands: list[Command] = []
    for board in range(BOARDS):
        for some in batches(batch, 100):
            members = [part for each in some for part in (each.score, each.user_id)]
            commands.append(("ZADD", bare_board(board), "GT", *members))
    await wire.execute_commands(commands)


if __name__ == "__main__":
    _redis_url, _database_url, _count, _players, _seed = sys.argv[1:]
    uvloop.run(bare(_redis_url, _database_url, int(_count), int(_players), int(_seed)))
