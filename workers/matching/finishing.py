"""The request of a game's server when a game is over: `game.finish`."""

from protocol.envelope import trace_of
from protocol.errors import (
    ALREADY_FINISHED,
    BUSY,
    BUSY_RETRY_MS,
    INVALID_REQUEST,
    SESSION_NOT_FOUND,
    RequestError,
)
from protocol.messages.matching import Finished, FinishGame
from storage.games import AlreadyFinished, Finish
from storage.matches import Session
from storage.queues import Busy
from storage.servers import now_ms
from workers.matching.book import task_ids
from workers.matching.room import MatchingRoom, handlers
from workers.requests import Call, record, sender
from workers.rules import check_game_type, check_score


@handlers.handles(FinishGame)
async def finish_game(room: MatchingRoom, call: Call[FinishGame]) -> Finished:
    """End a session, once, and announce its results."""
    session = await room.book.session(call.data.game_session_id)
    if session is None:
        raise RequestError(SESSION_NOT_FOUND)
    _check_results(session, call.data)
    check_game_type(room.ranking, call.data.game_type)
    for result in call.data.results:
        check_score(room.ranking, call.data.game_type, result.score)
    finish = Finish(
        session=session,
        game_type=call.data.game_type,
        scores=tuple((result.user_id, result.score) for result in call.data.results),
        request_id=record(call, sender(call)).name,
        finished_ms=now_ms(),
    )
    try:
        ended = await room.book.finish(finish, trace_of(call.envelope.trace_id))
    except AlreadyFinished:
        raise RequestError(ALREADY_FINISHED) from None
    except Busy:
        raise RequestError(BUSY, retry_after_ms=BUSY_RETRY_MS) from None
    return Finished(task_ids=task_ids(ended))


def _check_results(session: Session, data: FinishGame) -> None:
    user_ids = [result.user_id for result in data.results]
    if len(set(user_ids)) < len(user_ids):
        raise RequestError(INVALID_REQUEST, "`results` has a player twice")
    strangers = sorted(set(user_ids) - set(session.players))
    if strangers:
        raise RequestError(INVALID_REQUEST, f"`results`: {', '.join(strangers)} did not play this game")
