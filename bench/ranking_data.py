"""Players on boards, a million of them: written by the database itself, then rebuilt as an operator would."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.messages.ranking import BoardType
from storage.boards import Board, Boards
from storage.connections import connect_wire
from storage.database import Database
from storage.past_boards import PastBoards
from storage.periods import ALL, Calendar
from storage.removals import Removals
from storage.scores import Accepted, Scores
from storage.servers import now_ms
from workers.ranking.truth import Truth

GAME = "suika"
MOST = 1_000_000
"""Scores are from 0 to less than this."""

FILL_LIMIT_S = 300.0
KEEP_PAST_S = 172_800.0

_SEQUENCE = {
    "mysql": "SELECT seq AS n FROM seq_1_to_{count}",
    "sqlite": (
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s"
    ),
}
_NAME = {"mysql": "CONCAT('p', LPAD(n, 7, '0'))", "sqlite": "printf('p%07d', n)"}


@dataclass(frozen=True)
class Filled:
    """What a rebuild took, and what the boards of all games take, and those of the game with them."""

    rebuild_s: float
    four_boards_bytes: int
    all_bytes: int


def name(number: int) -> str:
    """A player's id, by a number from 1."""
    return f"p{number:07}"


async def fill(database_url: str, redis_url: str, count: int) -> Filled:
    """Write so many players' bests into SQL, and make the boards from them."""
    database = Database(database_url, time_limit_s=FILL_LIMIT_S)
    calendar, now = Calendar("UTC"), now_ms()
    for period in (ALL, calendar.periods(now).day.name):
        await database.transaction(partial(_write, period=period, count=count, at_ms=now))
    wire = connect_wire(redis_url)
    boards = Boards(wire, KEEP_PAST_S)
    truth = Truth(boards, Scores(database), PastBoards(database), Removals(database), calendar, KEEP_PAST_S)
    async with Redis.from_url(redis_url, socket_timeout=FILL_LIMIT_S) as redis:
        before = int((await redis.info("memory"))["used_memory"])
        start_s = time.perf_counter()
        await truth.rebuild(lambda done, total: None)
        took_s = time.perf_counter() - start_s
        filled = Filled(
            rebuild_s=took_s,
            four_boards_bytes=await _size_bytes(redis, calendar, now),
            all_bytes=int((await redis.info("memory"))["used_memory"]) - before,
        )
        periods = calendar.periods(now)
        for number, (board_type, game_type) in enumerate(product(BoardType, (None, GAME))):
            key = Board(periods[board_type], game_type).key
            await redis.execute_command("COPY", key, bare_board(number), "REPLACE")
    await wire.aclose()
    await database.close()
    return filled


def bare_board(number: int) -> str:
    """One of the eight sorted sets that the limit writes: as large as ours."""
    return f"bare:{number}"


def scores(count: int, players: int, seed: int) -> Iterator[Accepted]:
    """Random scores of random players, at this moment."""
    chance = random.Random(seed)
    at_ms = now_ms()
    for number in range(count):
        user_id = name(chance.randint(1, players))
        task_id = f"task_{at_ms}_{user_id}_{seed:03x}{number:06x}"
        yield Accepted(task_id, user_id, chance.randrange(MOST), GAME, "medium", at_ms)


def batches(given: Sequence[Accepted], size: int) -> Iterator[Sequence[Accepted]]:
    """The same, so many at a time."""
    for start in range(0, len(given), size):
        yield given[start : start + size]


async def _write(connection: AsyncConnection, period: str, count: int, at_ms: int) -> None:
    dialect = connection.dialect.name
    numbers = _SEQUENCE[dialect].format(count=count)
    # Spread by a prime, and the same each time.
    rows = f":period, :game, {_NAME[dialect]}, (n * 7919) % {MOST}, :at_ms - n % 1000 FROM ({numbers}) AS s"
    columns = "period, game_type, user_id, score, reached_at"
    await connection.execute(
        text(f"INSERT INTO best_scores ({columns}) SELECT {rows}"),
        {"period": period, "game": GAME, "at_ms": at_ms},
    )


async def _size_bytes(redis: Redis, calendar: Calendar, at_ms: int) -> int:
    keys = [Board(calendar.periods(at_ms)[board_type]).key for board_type in BoardType]
    return sum([int(await redis.execute_command("MEMORY", "USAGE", key, "SAMPLES", "1000")) for key in keys])
