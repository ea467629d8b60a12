"""The noun "score": accepted into a queue, kept in SQL once, and the best of them remembered.

`best_scores` has a row for a user's best of each game, one for all of time and one for each day. Weeks and
months follow from days, and all games from each, so that a submission costs three rows and not nine.
"""

from collections.abc import AsyncIterator, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Dialect, Select, and_, case, delete, func, select, tuple_
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.codec import encode
from storage import keys
from storage.boards import Best
from storage.database import Database
from storage.errors import StoreAway
from storage.functions import Library
from storage.gathering import Gathering
from storage.periods import ALL
from storage.queues import Busy
from storage.tables import best_scores, frozen_boards, scores
from storage.tickets import Record
from storage.wire import Argument, Wire

LIBRARY = Library("scores")

LAST_SCORE_LIFE_S = 86_400.0
RESULT_LIFE_S = 86_400.0
"""How long Redis knows that a game session has a user's result; SQL knows it for good."""

CHUNK = 2000
"""Rows of one read, so that it stays far below the database's time limit."""

FULL, HAS_RESULT = b"", b"!"


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """A score on its way to the boards. `submitted_ms` is when its request reached a node.

    `trace` is that of the stay in which it was reached, "" where none is known.
    """

    task_id: str
    user_id: str
    score: int
    game_type: str
    difficulty: str
    submitted_ms: int
    game_session_id: str | None = None
    trace: str = ""


_decoder = msgspec.msgpack.Decoder(Accepted)
decode_score = _decoder.decode
"""The score in an entry of the queue."""


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """A score to be accepted, and where the first answer to its request is kept.

    Told apart by identity: repeats are found by their records.
    """

    accepted: Accepted
    record: Record


class AlreadySubmitted(Exception):
    """The game session has a result of this user already."""


class SecondResults(Exception):
    """Users have another result of the same game session already; `task_ids` are those that come second."""

    def __init__(self, task_ids: Set[str]) -> None:
        super().__init__(f"{len(task_ids)} results of game sessions that have one of the same user.")
        self.task_ids = task_ids


class Submissions:
    """The queue of accepted scores as those who submit see it. Raises StoreAway."""

    def __init__(self, redis: Wire) -> None:
        self._redis = redis
        self._gathering = Gathering(self._accept)

    async def accept(self, submission: Submission) -> str:
        """Put a score into the queue, once; its task's id, which is the first one's for a repeat.

        All that come in one turn of the loop are accepted in one call. Raises Busy or AlreadySubmitted.
        """
        answer = await self._gathering.get(submission)
        if answer == HAS_RESULT:
            raise AlreadySubmitted
        if not answer:
            raise Busy(f"Queue {keys.SUBMITTED_SCORES} is full.")
        return answer.decode()

    async def _accept(self, submissions: Set[Submission]) -> dict[Submission, bytes]:
        queue = keys.SUBMITTED_SCORES
        names = [queue, keys.queue_meta(queue), keys.queue_stats(queue)]
        args: list[Argument] = [int(LAST_SCORE_LIFE_S * 1000), int(RESULT_LIFE_S * 1000)]
        asked = list(submissions)
        for submission in asked:
            score, record = submission.accepted, submission.record
            session = score.game_session_id
            result = record.key if session is None else keys.session_result(session, score.user_id)
            names += [record.key, keys.temp_score(score.user_id), result]
            args += [score.task_id, encode(score), record.ttl_ms]
            args += [score.score, score.game_type, score.difficulty, score.submitted_ms]
        answers = await LIBRARY.call(self._redis, "score_accept", names, args)
        if answers is None:
            raise StoreAway(f"Redis has no queue {queue}: a ranking worker makes it.")
        return dict(zip(asked, answers, strict=True))


class Scores:
    """Scores in SQL. Raises StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(
        self, batch: Sequence[Accepted], bests: Iterable[tuple[str, str, Best]], late: Set[str]
    ) -> None:
        """Keep scores, once however often they come, and raise the best ones, in one transaction.

        `bests` are period (`all` or a day), game and score. `late` are periods that are over: what was frozen
        of them is out of date. Raises SecondResults, and has kept nothing, where a user has another result of
        the same game session.
        """
        rows = [_row(score) for score in sorted(batch, key=lambda score: score.task_id)]
        best_rows = [(period, game_type, *best) for period, game_type, best in sorted(bests)]
        sessions = {score.task_id for score in batch if score.game_session_id is not None}

        async def work(connection: AsyncConnection) -> None:
            texts = _texts(connection.dialect)
            await connection.exec_driver_sql(texts.inserted_once, rows)
            second = sessions - await _known(connection, sessions)
            if second:
                raise SecondResults(second)
            await connection.exec_driver_sql(texts.raised, best_rows)
            if late:
                await connection.execute(delete(frozen_boards).where(frozen_boards.c.period.in_(late)))

        await self._database.transaction(work)

    async def has_result(self, game_session_id: str, user_id: str) -> bool:
        """Whether a user has a result of a game session."""

        async def query(connection: AsyncConnection) -> bool:
            found = select(scores.c.task_id).where(
                scores.c.game_session_id == game_session_id, scores.c.user_id == user_id
            )
            return await connection.scalar(found) is not None

        return await self._database.read(query)

    async def game_types(self) -> list[str]:
        """The games of which there are scores."""

        async def query(connection: AsyncConnection) -> list[str]:
            found = select(best_scores.c.game_type).where(best_scores.c.period == ALL).distinct()
            return sorted(await connection.scalars(found))

        return await self._database.read(query)

    async def count(self, sources: Set[tuple[str, str]]) -> int:
        """How many rows `best` finds for these periods and games."""

        async def query(connection: AsyncConnection) -> int:
            found = select(func.count()).where(
                tuple_(best_scores.c.period, best_scores.c.game_type).in_(sources)
            )
            return int(await connection.scalar(found) or 0)

        return await self._database.read(query) if sources else 0

    async def best(self, period: str, game_type: str) -> AsyncIterator[list[Best]]:
        """Each user's best of a game, for all of time or a day, by user id and CHUNK at a time."""
        after = ""
        while True:
            chunk = await self._chunk(period, game_type, after)
            if chunk:
                yield chunk
            if len(chunk) < CHUNK:
                return
            after = chunk[-1].user_id

    async def best_of(self, periods: Set[str], game_types: Set[str], user_ids: Set[str]) -> list[Best]:
        """Some users' best of games and periods (`all` or days), as they are: several a user."""

        async def query(connection: AsyncConnection) -> list[Best]:
            rows = await connection.execute(
                _bests().where(
                    best_scores.c.period.in_(periods),
                    best_scores.c.game_type.in_(game_types),
                    best_scores.c.user_id.in_(user_ids),
                )
            )
            return [Best(*row) for row in rows]

        return await self._database.read(query)

    async def _chunk(self, period: str, game_type: str, after: str) -> list[Best]:
        async def query(connection: AsyncConnection) -> list[Best]:
            rows = await connection.execute(
                _bests()
                .where(
                    best_scores.c.period == period,
                    best_scores.c.game_type == game_type,
                    best_scores.c.user_id > after,
                )
                .order_by(best_scores.c.user_id)
                .limit(CHUNK)
            )
            return [Best(*row) for row in rows]

        return await self._database.read(query)


def _bests() -> Select[Any]:
    return select(best_scores.c.user_id, best_scores.c.score, best_scores.c.reached_at)


def _row(score: Accepted) -> tuple[str | int | None, ...]:
    """In the order of the table's columns."""
    return (
        score.task_id,
        score.user_id,
        score.game_type,
        score.difficulty,
        score.score,
        score.game_session_id,
        score.submitted_ms,
    )


async def _known(connection: AsyncConnection, task_ids: Set[str]) -> Set[str]:
    if not task_ids:
        return set()
    return set(await connection.scalars(select(scores.c.task_id).where(scores.c.task_id.in_(task_ids))))


class _Texts(NamedTuple):
    """The two statements of a batch in a dialect's own words, for rows in the order of the tables' columns.

    SQLAlchemy takes the parameters of thousands of rows apart and puts them together again; the driver
    takes tuples as they are, for less than half of the time.
    """

    inserted_once: str
    raised: str


@lru_cache(maxsize=4)
def _texts(dialect: Dialect) -> _Texts:
    statements = (_inserted_once(dialect.name), scores), (_raised(dialect.name), best_scores)
    return _Texts(
        *(
            str(statement.compile(dialect=dialect, column_keys=[column.name for column in table.columns]))
            for statement, table in statements
        )
    )


def _inserted_once(dialect: str) -> Any:
    if dialect == "sqlite":
        return sqlite.insert(scores).on_conflict_do_nothing()
    # Not INSERT IGNORE, which would also let faults pass that have nothing to do with a repeat.
    return mysql.insert(scores).on_duplicate_key_update(task_id=scores.c.task_id)


def _raised(dialect: str) -> Any:
    """The better score stays, and of equal ones the earlier. MariaDB assigns in the order given."""
    made: Any = (sqlite if dialect == "sqlite" else mysql).insert(best_scores)
    new = made.excluded if dialect == "sqlite" else made.inserted
    old = best_scores.c
    reached_at = case(
        (new.score > old.score, new.reached_at),
        (and_(new.score == old.score, new.reached_at < old.reached_at), new.reached_at),
        else_=old.reached_at,
    )
    if dialect == "sqlite":
        return made.on_conflict_do_update(
            index_elements=["period", "game_type", "user_id"],
            set_={"reached_at": reached_at, "score": func.max(old.score, new.score)},
        )
    return made.on_duplicate_key_update(
        [("reached_at", reached_at), ("score", func.greatest(old.score, new.score))]
    )
