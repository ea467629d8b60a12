"""The book of sessions: written down in the database, and closed when their game is over."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from protocol.announcement import GameFinished, Result
from storage.errors import StoreAway
from storage.events import announce
from storage.games import Finish, Games
from storage.matches import MatchBoard, Matches, Session
from storage.queues import Busy, Outbox
from storage.whereabouts import Whereabouts
from workers.matching.skills import Skills, rate

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 200
MOST_REMEMBERED = 10_000
"""Sessions that are kept in memory to be written; beyond, they are found in Redis later."""

AWAY_PAUSE_S = 1.0
LEFT_PERIOD_S = 5.0
LEFT_AFTER_S = 10.0
"""What its worker has not done by then, another does."""

LEFT_WITHIN_S = 86_400.0


class Book:
    """Sessions of play in the database. `leads` says whether this worker looks after what others left."""

    def __init__(
        self,
        games: Games,
        matches: Matches,
        board: MatchBoard,
        outbox: Outbox,
        skills: Skills,
        whereabouts: Whereabouts,
        leads: Callable[[], bool],
    ) -> None:
        self._games = games
        self._matches = matches
        self._board = board
        self._outbox = outbox
        self._skills = skills
        self._whereabouts = whereabouts
        self._leads = leads
        self._unwritten: list[Session] = []
        self._gathered = asyncio.Event()

    def write(self, session: Session) -> None:
        """Have a session written down soon."""
        if len(self._unwritten) < MOST_REMEMBERED:
            self._unwritten.append(session)
            self._gathered.set()

    async def run(self) -> None:
        """Write for as long as the process lives. Runs as a side task."""
        while True:
            await self._gathered.wait()
            some = self._unwritten[:MOST_AT_ONCE]
            try:
                await self._write(some)
            except StoreAway as error:
                log.warning("cannot write sessions", cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            del self._unwritten[: len(some)]
            if not self._unwritten:
                self._gathered.clear()

    async def look_after(self) -> None:
        """Do what others have left undone, while this worker leads. Runs as a side task."""
        while True:
            await asyncio.sleep(LEFT_PERIOD_S)
            if not self._leads():
                continue
            try:
                await self.finish_left()
            except (StoreAway, Busy) as error:
                log.warning("cannot look after sessions", cause=str(error))

    async def finish_left(self) -> None:
        """Write and close what workers that died have left. Raises StoreAway, or Busy for a full bus."""
        await self._write_left()
        for finish in await self._games.unannounced(LEFT_AFTER_S, LEFT_WITHIN_S, MOST_AT_ONCE):
            await self._close(finish, finish.request_id)

    async def session(self, session_id: str) -> Session | None:
        """A session that there is or was."""
        return await self._board.session(session_id) or await self._games.session(session_id)

    async def finish(self, finish: Finish, trace_id: str) -> Finish:
        """End a session and announce it; a repeat gets what its first did.

        Raises AlreadyFinished, StoreAway, or Busy where the bus is full: it is announced later then.
        """
        counts = self._skills.counts(finish.session.difficulty)
        ended = await self._games.finish(finish, rate if counts else None)
        await self._close(ended, trace_id)
        return ended

    async def _write(self, sessions: Sequence[Session]) -> None:
        await self._games.write(sessions)
        await self._board.written([session.session_id for session in sessions])

    async def _write_left(self) -> None:
        left = await self._board.unwritten(LEFT_AFTER_S, MOST_AT_ONCE)
        found = [await self._board.session(session_id) for session_id in left]
        await self._games.write(session for session in found if session is not None)
        await self._board.written(left)

    async def _close(self, finish: Finish, trace_id: str) -> None:
        """What follows from an end; done again, it changes nothing."""
        session = finish.session
        await self._matches.finish(session.session_id, session.players)
        traces = await self._whereabouts.traces([user_id for user_id, _ in finish.scores])
        fact = GameFinished(
            game_session_id=session.session_id,
            game_type=finish.game_type,
            difficulty=session.difficulty,
            results=tuple(
                Result(user_id, score, task_id, trace)
                for (user_id, score), task_id, trace in zip(
                    finish.scores, task_ids(finish), traces, strict=True
                )
            ),
            finished_ms=finish.finished_ms,
        )
        outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        announcement_id = f"game_finished:{session.session_id}"
        announce(self._outbox, announcement_id, trace_id, fact, outcome.set_result)
        error = await outcome
        if error is not None:
            raise error
        await self._games.announced(session.session_id)


def task_ids(finish: Finish) -> list[str]:
    """Under which id each score is worked on: made from the fact, so that a repeat has the same."""
    suffix = finish.session.session_id[-8:]
    return [f"task_{finish.finished_ms}_{user_id}_{suffix}" for user_id, _ in finish.scores]
