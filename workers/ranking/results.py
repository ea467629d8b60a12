"""The results of games, as the event bus brings them: each becomes an accepted score."""

from typing import TYPE_CHECKING

import structlog

from protocol.announcement import Announcement, GameFinished, Result
from protocol.errors import RequestError
from storage.scores import Accepted, AlreadySubmitted, Submission
from storage.tickets import Record
from workers.rules import check_score

if TYPE_CHECKING:
    from workers.ranking.room import RankingRoom

log = structlog.get_logger(__name__)

RECORD_LIFE_S = 86_400.0
"""How long an announcement is remembered that may come again; SQL keeps one result a session for good."""


class Results:
    """Submits the results of finished games."""

    def __init__(self, room: "RankingRoom") -> None:
        self._room = room

    async def hear(self, announcement: Announcement) -> None:
        """Take one announcement. Raises Busy or StoreAway: it is then told again."""
        if isinstance(announcement.fact, GameFinished):
            for result in announcement.fact.results:
                await self._accept(announcement, announcement.fact, result)

    async def _accept(self, announcement: Announcement, game: GameFinished, result: Result) -> None:
        try:
            check_score(self._room.settings, game.game_type, result.score)
        except RequestError as error:
            # `game.finish` refuses such: other workers have other rules.
            log.warning(
                "a result that cannot be",
                game_session_id=game.game_session_id,
                user_id=result.user_id,
                cause=str(error),
            )
            return
        accepted = Accepted(
            task_id=result.task_id,
            user_id=result.user_id,
            score=result.score,
            game_type=game.game_type,
            difficulty=game.difficulty,
            submitted_ms=game.finished_ms,
            game_session_id=game.game_session_id,
            trace=result.trace or announcement.trace_id,
        )
        record = Record(f"{announcement.id}:{result.user_id}", RECORD_LIFE_S)
        try:
            await self._room.submissions.accept(Submission(accepted, record))
        except AlreadySubmitted:
            log.info("has a result already", game_session_id=game.game_session_id, user_id=result.user_id)
        else:
            log.debug("submitted", trace_id=accepted.trace, task_id=accepted.task_id)
