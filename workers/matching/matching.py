"""The requests of players who look for opponents: `game.match`, `game.status` and `game.cancel`."""

from protocol.errors import ALREADY_MATCHED, ALREADY_MATCHING, NOT_IN_QUEUE, RequestError
from protocol.messages.matching import (
    LONGEST_WAIT_S,
    USUAL_PLAYERS,
    AskMatch,
    CancelMatch,
    FindMatch,
    MatchCancelled,
    MatchState,
    MatchStatus,
    Preferences,
    Search,
)
from storage.matches import AlreadyMatched, Entry, NotInQueue, Wish
from workers.matching.room import MatchingRoom, handlers
from workers.requests import Answer, Call, record
from workers.standing import match_state, matched, seconds


@handlers.handles(FindMatch)
async def find_match(room: MatchingRoom, call: Call[FindMatch]) -> Answer:
    """Opponents at once, or a place in the queue."""
    user_id = await room.gate.acting_for(call, call.data.user_id)
    skill = await room.skills.of(user_id, call.data.difficulty.value)
    wish = wish_of(user_id, call.data, skill)
    entered = await room.matchmaker.enter(wish, record(call, user_id), call.envelope.origin)
    if entered.what is Entry.ALREADY_MATCHING:
        raise RequestError(ALREADY_MATCHING)
    if entered.meeting is not None:
        found = matched(entered.meeting)
        if entered.what is Entry.ALREADY_MATCHED:
            raise RequestError(ALREADY_MATCHED, data=found)
        return Answer(found)
    waiting = MatchState(status=MatchStatus.MATCHING, estimated_match_time=seconds(entered.expected_ms))
    return Answer(waiting, status=202)


@handlers.handles(AskMatch)
async def ask_match(room: MatchingRoom, call: Call[AskMatch]) -> MatchState:
    """Where a player stands."""
    standing = await room.board.standing(await room.gate.acting_for(call, call.data.user_id))
    if standing is None:
        raise RequestError(NOT_IN_QUEUE)
    return match_state(standing)


@handlers.handles(CancelMatch)
async def cancel_match(room: MatchingRoom, call: Call[CancelMatch]) -> MatchCancelled:
    """Wait no longer, or learn that it is too late."""
    user_id = await room.gate.acting_for(call, call.data.user_id)
    try:
        await room.matches.cancel(user_id, record(call, user_id))
    except NotInQueue:
        raise RequestError(NOT_IN_QUEUE) from None
    except AlreadyMatched as error:
        raise RequestError(ALREADY_MATCHED, data=matched(error.meeting)) from None
    return MatchCancelled()


def wish_of(user_id: str, asked: Search, skill: float) -> Wish:
    """What a player asks for, with what is usual where nothing is said."""
    preferences = asked.preferences or Preferences()
    size, wait_s = preferences.players, preferences.max_wait_sec
    return Wish(
        user_id=user_id,
        difficulty=asked.difficulty.value,
        level=asked.level,
        region=preferences.region or "",
        size=size if isinstance(size, int) else USUAL_PLAYERS,
        wait_ms=1000 * (wait_s if isinstance(wait_s, int) else LONGEST_WAIT_S),
        skill=round(skill, 3),
    )
