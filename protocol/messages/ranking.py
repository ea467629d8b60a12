"""Scores, boards and friends (docs/ranking.md)."""

from enum import Enum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from protocol.errors import FORBIDDEN, FRIENDS_FULL, INVALID_SCORE, USER_NOT_FOUND
from protocol.messages.declaration import Message, Nothing, event, request
from protocol.queues import Lane

MOST_RANKS = 100
"""Ranks in one answer."""

MOST_OFFSET = 1_000_000_000

UserId = Annotated[str, Meta(min_length=1, max_length=32)]
GameType = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z",
        description="1 to 32 of `a-z 0-9 _ -`; one that the server knows",
    ),
]
GameSessionId = Annotated[str, Meta(min_length=1, max_length=64)]


class BoardType(Enum):
    """For how long a score counts on a board."""

    TOTAL = "total"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class ScoreAccepted(Message, frozen=True):
    """The score is kept and will be on the boards within a second."""

    task_id: str


@request(
    "ranking.submit",
    owner="ranking",
    reply=ScoreAccepted,
    status=202,
    errors=(FORBIDDEN, INVALID_SCORE, USER_NOT_FOUND),
)
class SubmitScore(Message, frozen=True):
    """Hand in the score of a game that was played.

    A better score replaces a worse one, never the reverse. It counts for the day, week and month of its
    arrival. With a `gameSessionId` the game must have been played by the user, for long enough, and have no
    result of theirs yet.
    """

    score: int
    game_type: GameType
    difficulty: Annotated[str, Meta(max_length=16, description="one that the server knows, such as `easy`")]
    user_id: UserId | None = None
    game_session_id: GameSessionId | None = None


class Ranking(Message, frozen=True):
    """A place on a board. Equal scores share a rank, in the order in which they were reached: 1, 2, 2, 4."""

    rank: int
    user_id: str
    nickname: str
    score: int


class Rankings(Message, frozen=True):
    """A part of a board. `userRank` and `userScore` are the asker's own, null without a score there."""

    rankings: list[Ranking]
    user_rank: int | None
    user_score: int | None
    total_players: int


@request("ranking.get", owner="ranking", reply=Rankings)
class GetRankings(Message, frozen=True):
    """Read a board: from `offset`, or `around` the asker's own place.

    `period` is `all`, `20241218`, `2024W51` (ISO year and week) or `202412`; without one it is the current
    one. Without a `gameType` it is the board of all games.
    """

    type: BoardType
    period: Annotated[str, Meta(max_length=8)] | None = None
    game_type: GameType | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_RANKS, description=f"from 1 to {MOST_RANKS}")] = MOST_RANKS
    offset: Annotated[int, Meta(ge=0, le=MOST_OFFSET, description="from 0 on")] = 0
    around: bool = False


class FriendRankings(Message, frozen=True):
    """The user and those of their friends who have a score, best first, ranked among themselves."""

    friend_rankings: list[Ranking]


@request("ranking.friends", owner="ranking", reply=FriendRankings, errors=(FORBIDDEN, USER_NOT_FOUND))
class GetFriendRankings(Message, frozen=True):
    """Read how a user stands among their friends on the all-time board of all games."""

    user_id: UserId | None = None


@request("ranking.subscribe", owner="ranking", reply=Nothing)
class SubscribeRankings(Message, frozen=True):
    """Get `RANKING_UPDATE` when the top 100 of a board of all games changes, at most once a second."""

    type: BoardType


@request("ranking.unsubscribe", owner="ranking", reply=Nothing)
class UnsubscribeRankings(Message, frozen=True):
    """Get no more of a board's updates."""

    type: BoardType


class Friend(Message, frozen=True):
    """A friend by id and name."""

    user_id: str
    nickname: str


class Friends(Message, frozen=True):
    """The asker's friends now, by user id."""

    friends: list[Friend]


@request("friend.add", owner="ranking", reply=Friends, lane=Lane.LOW, errors=(USER_NOT_FOUND, FRIENDS_FULL))
class AddFriend(Message, frozen=True):
    """Become friends: each is the other's from now on. Harmless where they are already."""

    friend_id: UserId


@request("friend.remove", owner="ranking", reply=Friends, lane=Lane.LOW, errors=(USER_NOT_FOUND,))
class RemoveFriend(Message, frozen=True):
    """Be friends no more, on either side. Harmless where they are not."""

    friend_id: UserId


@request("friend.list", owner="ranking", reply=Friends, lane=Lane.LOW)
class ListFriends(Message, frozen=True):
    """Read who the asker's friends are."""


@event("RANKING_UPDATE")
class RankingUpdate(Message, frozen=True):
    """Either a score of one's own has been processed, or a subscribed board's top 100 has changed.

    The first has `taskId`, the submitted `score`, and the `rank` on a board of all games after and before it
    (`previousRank` is null for a first score). One comes for the all-time board, whether or not the score
    changed it, and one for each of the boards of the day, week and month that it changed. The second has
    `rankings`.
    """

    type: BoardType
    period: str
    task_id: str | UnsetType = UNSET
    score: int | UnsetType = UNSET
    rank: int | UnsetType = UNSET
    previous_rank: int | UnsetType | None = UNSET
    rankings: list[Ranking] | UnsetType = UNSET


@event("FRIEND_OVERTOOK")
class FriendOvertook(Message, frozen=True):
    """A friend has passed you on the all-time board, with this score to this rank.

    At most one a minute; of several the latest.
    """

    friend_id: str
    score: int
    rank: int
