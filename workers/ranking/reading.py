"""Reading boards: `ranking.get`, `ranking.friends`, and who hears of their changes."""

from protocol.envelope import Join, Leave
from protocol.errors import BUSY, BUSY_RETRY_MS, INVALID_REQUEST, USER_NOT_FOUND, RequestError
from protocol.messages import Nothing
from protocol.messages.ranking import (
    FriendRankings,
    GetFriendRankings,
    GetRankings,
    Ranking,
    Rankings,
    SubscribeRankings,
    UnsubscribeRankings,
)
from storage.boards import Board, Page, Standing
from storage.past_boards import NotFrozen
from storage.servers import now_ms
from workers.ranking.room import RankingRoom, handlers
from workers.ranking.spreading import topic
from workers.requests import Answer, Call, sender
from workers.rules import check_game_type


@handlers.handles(GetRankings)
async def get(room: RankingRoom, call: Call[GetRankings]) -> Rankings:
    """A part of a board and where the asker stands on it."""
    board = _board(room, call.data)
    user_id = sender(call)
    if call.data.around:
        rankings, standing = await _around(room, board, user_id, call.data.limit)
    else:
        reading = room.pages.recent(Page(board, call.data.offset, call.data.limit))
        standing = await room.boards.standing(board, user_id)
        rankings = await reading
    if standing.players == 0 and board.period.is_over(now_ms()):
        rankings, standing = await _past(room, board, user_id, call.data)
    return Rankings(
        rankings=rankings,
        user_rank=standing.rank,
        user_score=standing.score,
        total_players=standing.players,
    )


@handlers.handles(GetFriendRankings)
async def get_friends(room: RankingRoom, call: Call[GetFriendRankings]) -> FriendRankings:
    """How a user stands among their friends."""
    user_id = await room.gate.acting_for(call, call.data.user_id)
    if user_id != call.envelope.user_id and not await room.nicknames.knows(user_id):
        raise RequestError(USER_NOT_FOUND)
    places = await room.friends.ranked(user_id)
    return FriendRankings(friend_rankings=await room.pages.rankings(places))


@handlers.handles(SubscribeRankings)
async def subscribe(_: RankingRoom, call: Call[SubscribeRankings]) -> Answer:
    """Have this connection hear when a board's top changes."""
    return Answer(Nothing(), Join(topic(call.data.type)))


@handlers.handles(UnsubscribeRankings)
async def unsubscribe(_: RankingRoom, call: Call[UnsubscribeRankings]) -> Answer:
    """Have this connection hear no more of a board."""
    return Answer(Nothing(), Leave(topic(call.data.type)))


def _board(room: RankingRoom, asked: GetRankings) -> Board:
    if asked.game_type is not None:
        check_game_type(room.settings, asked.game_type)
    if asked.period is None:
        return Board(room.calendar.periods(now_ms())[asked.type], asked.game_type)
    try:
        return Board(room.calendar.named(asked.type, asked.period), asked.game_type)
    except ValueError as error:
        raise RequestError(INVALID_REQUEST, f"`period`: {error}") from None


async def _around(
    room: RankingRoom, board: Board, user_id: str, limit: int
) -> tuple[list[Ranking], Standing]:
    standing = await room.boards.standing(board, user_id)
    if standing.place is None:
        return [], standing
    return await room.pages.get(Page(board, _first_around(standing.place, limit), limit)), standing


async def _past(
    room: RankingRoom, board: Board, user_id: str, asked: GetRankings
) -> tuple[list[Ranking], Standing]:
    """From SQL, where Redis has the board no longer."""
    try:
        standing = await room.past.standing(board, user_id)
        if asked.around and standing.place is None:
            return [], standing
        offset = asked.offset if standing.place is None else _first_around(standing.place, asked.limit)
        places = await room.past.page(Page(board, offset if asked.around else asked.offset, asked.limit))
    except NotFrozen:
        if not await room.past.has_scores(room.calendar.days(board.period)):
            return [], Standing(0)
        raise RequestError(
            BUSY, "This board is about to be frozen: ask again.", retry_after_ms=BUSY_RETRY_MS
        ) from None
    return await room.pages.rankings(places), standing


def _first_around(place: int, limit: int) -> int:
    """Where a page of `limit` begins that has `place` in its middle."""
    return max(0, place - limit // 2)
