"""Handing in scores: `ranking.submit`."""

import secrets

from protocol.errors import BUSY, BUSY_RETRY_MS, INVALID_SCORE, USER_NOT_FOUND, RequestError
from protocol.messages.ranking import ScoreAccepted, SubmitScore
from storage.queues import Busy
from storage.scores import Accepted, AlreadySubmitted, Submission
from workers.ranking.room import RankingRoom, handlers
from workers.ranking.rules import check_score
from workers.requests import Call, acting_for, record


@handlers.handles(SubmitScore)
async def submit(room: RankingRoom, call: Call[SubmitScore]) -> ScoreAccepted:
    """Accept a score that can be; it is on the boards within a second."""
    user_id = acting_for(call, call.data.user_id)
    check_score(room.settings, call.data)
    if user_id != call.envelope.user_id and not await room.nicknames.knows(user_id):
        raise RequestError(USER_NOT_FOUND)
    session_id = call.data.game_session_id
    if session_id is not None and await room.scores.has_result(session_id, user_id):
        raise RequestError(INVALID_SCORE, HAS_RESULT)
    submitted_ms = call.envelope.sent_ms
    accepted = Accepted(
        task_id=new_task_id(submitted_ms, user_id),
        user_id=user_id,
        score=call.data.score,
        game_type=call.data.game_type,
        difficulty=call.data.difficulty,
        submitted_ms=submitted_ms,
        game_session_id=session_id,
    )
    try:
        task_id = await room.submissions.accept(Submission(accepted, record(call, user_id)))
    except AlreadySubmitted:
        raise RequestError(INVALID_SCORE, HAS_RESULT) from None
    except Busy as error:
        raise RequestError(BUSY, str(error), retry_after_ms=BUSY_RETRY_MS) from None
    return ScoreAccepted(task_id=task_id)


HAS_RESULT = "This game session has a result of this user already."


def new_task_id(submitted_ms: int, user_id: str) -> str:
    """A task's id: when, whose, and what tells it from another of the same ms."""
    return f"task_{submitted_ms}_{user_id}_{secrets.token_hex(4)}"
