"""Handing in scores: `ranking.submit`."""

import random

from protocol.envelope import trace_of
from protocol.errors import BUSY, BUSY_RETRY_MS, INVALID_SCORE, USER_NOT_FOUND, RequestError
from protocol.messages.ranking import ScoreAccepted, SubmitScore
from storage.queues import Busy
from storage.scores import RESULT_LIFE_S, Accepted, AlreadySubmitted, Submission
from workers.ranking.room import RankingRoom, handlers
from workers.requests import Call, record
from workers.rules import check_age, check_difficulty, check_score


@handlers.handles(SubmitScore)
async def submit(room: RankingRoom, call: Call[SubmitScore]) -> ScoreAccepted:
    """Accept a score that can be; it is on the boards within a second."""
    user_id = await room.gate.acting_for(call, call.data.user_id)
    check_score(room.settings, call.data.game_type, call.data.score)
    check_difficulty(room.settings, call.data.difficulty)
    if user_id != call.envelope.user_id and not await room.nicknames.knows(user_id):
        raise RequestError(USER_NOT_FOUND)
    submitted_ms = call.envelope.sent_ms
    session_id = call.data.game_session_id
    if session_id is not None:
        await _check_session(room, session_id, user_id, call.data.game_type, submitted_ms)
    accepted = Accepted(
        task_id=new_task_id(submitted_ms, user_id),
        user_id=user_id,
        score=call.data.score,
        game_type=call.data.game_type,
        difficulty=call.data.difficulty,
        submitted_ms=submitted_ms,
        game_session_id=session_id,
        trace=trace_of(call.envelope.trace_id),
    )
    try:
        task_id = await room.submissions.accept(Submission(accepted, record(call, user_id)))
    except AlreadySubmitted:
        raise RequestError(INVALID_SCORE, HAS_RESULT) from None
    except Busy as error:
        raise RequestError(BUSY, str(error), retry_after_ms=BUSY_RETRY_MS) from None
    return ScoreAccepted(task_id=task_id)


async def _check_session(
    room: RankingRoom, session_id: str, user_id: str, game_type: str, submitted_ms: int
) -> None:
    """Raise RequestError INVALID_SCORE unless a user can have a result of a game session now."""
    session = await room.matches.session(session_id) or await room.games.session(session_id)
    if session is None or user_id not in session.players:
        raise RequestError(INVALID_SCORE, "There is no such game session of this user.")
    age_s = (submitted_ms - session.created_ms) / 1000
    check_age(room.settings, game_type, age_s)
    # Younger ones are known to Redis, and to SQL for good: it refuses what comes through nevertheless.
    if age_s > RESULT_LIFE_S and await room.scores.has_result(session_id, user_id):
        raise RequestError(INVALID_SCORE, HAS_RESULT)


HAS_RESULT = "This game session has a result of this user already."


def new_task_id(submitted_ms: int, user_id: str) -> str:
    """A task's id: when, whose, and what tells it from another of the same ms."""
    return f"task_{submitted_ms}_{user_id}_{random.getrandbits(32):08x}"
