"""The noun "game": sessions of play as the database keeps them for good, and the skill that players showed.

A session that nobody could write when it was made is written when it is finished.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.matches import Session
from storage.servers import now_ms
from storage.tables import game_sessions, skills

Scores = tuple[tuple[str, int], ...]
"""Who played and what each reached."""

_scores = msgspec.json.Decoder(Scores)


@dataclass(frozen=True, slots=True)
class Skill:
    """What is known of a player: `mu` is the skill that is most likely, `sigma` how uncertain that is."""

    mu: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Finish:
    """How a session ended. `request_id` names the request that said so; time in ms since the epoch."""

    session: Session
    game_type: str
    scores: Scores
    request_id: str
    finished_ms: int


class AlreadyFinished(Exception):
    """Another request has finished the game."""


Rate = Callable[[Sequence[Skill | None], Sequence[int]], Sequence[Skill]]
"""From players' skills, None for who has not played yet, and their scores to their skills afterwards."""


class Games:
    """Sessions and skills in the database. Raises StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, sessions: Iterable[Session]) -> None:
        """Write sessions down, those that are not written yet."""
        rows = {session.session_id: _row(session) for session in sessions}
        if not rows:
            return

        async def work(connection: AsyncConnection) -> None:
            known = select(game_sessions.c.session_id).where(game_sessions.c.session_id.in_(rows))
            missing = sorted(rows.keys() - set(await connection.scalars(known)))
            if missing:
                await connection.execute(insert(game_sessions), [rows[each] for each in missing])

        try:
            await self._database.transaction(work)
        except IntegrityError:  # another wrote one of them meanwhile
            await self._database.transaction(work)

    async def session(self, session_id: str) -> Session | None:
        """A session that is written down."""

        async def query(connection: AsyncConnection) -> Session | None:
            rows = await connection.execute(_where(session_id))
            row = rows.mappings().first()
            return None if row is None else _session(row)

        return await self._database.read(query)

    async def finish(self, finish: Finish, rate: Rate | None) -> Finish:
        """End a session, once, and note with `rate` what its players showed.

        Answers how it ended: a repeat gets what its first did. Raises AlreadyFinished.
        """

        async def work(connection: AsyncConnection) -> Finish:
            rows = await connection.execute(_where(finish.session.session_id).with_for_update())
            row = rows.mappings().first()
            if row is None:
                await connection.execute(insert(game_sessions), _row(finish.session))
            elif row["finished_at"] is not None:
                if row["finish_id"] != finish.request_id:
                    raise AlreadyFinished
                return _finish(row)
            await connection.execute(
                update(game_sessions)
                .where(game_sessions.c.session_id == finish.session.session_id)
                .values(
                    finished_at=finish.finished_ms,
                    finish_id=finish.request_id,
                    game_type=finish.game_type,
                    results=msgspec.json.encode(finish.scores).decode(),
                )
            )
            if rate is not None:
                await _learn(connection, finish, rate)
            return finish

        try:
            return await self._database.transaction(work)
        except IntegrityError:  # another wrote it meanwhile
            return await self._database.transaction(work)

    async def announced(self, session_id: str) -> None:
        """Note that the end of a session is on the event bus."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(
                update(game_sessions)
                .where(game_sessions.c.session_id == session_id)
                .values(announced_at=now_ms())
            )

        await self._database.transaction(work)

    async def unannounced(self, since_s: float, within_s: float, most: int) -> list[Finish]:
        """Sessions that ended so many seconds ago and may not be on the event bus, of those `within_s`."""
        now = now_ms()

        async def query(connection: AsyncConnection) -> list[Finish]:
            ended = game_sessions.c.finished_at
            rows = await connection.execute(
                select(game_sessions)
                .where(ended.between(now - within_s * 1000, now - since_s * 1000))
                .where(game_sessions.c.announced_at.is_(None))
                .limit(most)
            )
            return [_finish(row) for row in rows.mappings()]

        return await self._database.read(query)

    async def skills(self, difficulty: str, user_ids: Set[str]) -> Mapping[str, Skill]:
        """What is known of players at a difficulty."""

        async def query(connection: AsyncConnection) -> Mapping[str, Skill]:
            return await _skills(connection, difficulty, user_ids)

        return await self._database.read(query)


async def _skills(
    connection: AsyncConnection, difficulty: str, user_ids: Iterable[str]
) -> Mapping[str, Skill]:
    rows = await connection.execute(
        select(skills.c.user_id, skills.c.mu, skills.c.sigma)
        .where(skills.c.difficulty == difficulty, skills.c.user_id.in_(sorted(user_ids)))
        .order_by(skills.c.user_id)
    )
    return {user_id: Skill(mu, sigma) for user_id, mu, sigma in rows}


async def _learn(connection: AsyncConnection, finish: Finish, rate: Rate) -> None:
    difficulty = finish.session.difficulty
    scores = sorted(finish.scores)
    if len(scores) < 2:
        return
    known = await _skills(connection, difficulty, [user_id for user_id, _ in scores])
    after = rate([known.get(user_id) for user_id, _ in scores], [score for _, score in scores])
    for (user_id, _), skill in zip(scores, after, strict=True):
        values = {"mu": skill.mu, "sigma": skill.sigma, "updated_at": finish.finished_ms}
        if user_id in known:
            await connection.execute(
                update(skills)
                .where(skills.c.user_id == user_id, skills.c.difficulty == difficulty)
                .values(games=skills.c.games + 1, **values)
            )
        else:
            row = {"user_id": user_id, "difficulty": difficulty, "games": 1, **values}
            await connection.execute(insert(skills), row)


def _where(session_id: str) -> Select[Any]:
    return select(game_sessions).where(game_sessions.c.session_id == session_id)


def _row(session: Session) -> dict[str, object]:
    return {
        "session_id": session.session_id,
        "difficulty": session.difficulty,
        "level": session.level,
        "region": session.region,
        "cost": session.cost,
        "players": ",".join(session.players),
        "created_at": session.created_ms,
    }


def _session(row: Mapping[Any, Any]) -> Session:
    return Session(
        session_id=row["session_id"],
        difficulty=row["difficulty"],
        level=row["level"],
        region=row["region"],
        cost=row["cost"],
        players=tuple(row["players"].split(",")),
        created_ms=row["created_at"],
    )


def _finish(row: Mapping[Any, Any]) -> Finish:
    return Finish(
        session=_session(row),
        game_type=row["game_type"],
        scores=_scores.decode(row["results"]),
        request_id=row["finish_id"],
        finished_ms=row["finished_at"],
    )
