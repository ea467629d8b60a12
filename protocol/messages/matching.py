"""Finding opponents, and the sessions in which they play (docs/matching.md)."""

from enum import Enum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from protocol.errors import (
    ALREADY_FINISHED,
    ALREADY_MATCHED,
    ALREADY_MATCHING,
    FORBIDDEN,
    INVALID_SCORE,
    NOT_IN_QUEUE,
    SESSION_NOT_FOUND,
)
from protocol.messages.declaration import Message, event, request
from protocol.queues import Lane

LONGEST_WAIT_S = 60
"""Nobody waits for opponents longer; then they hear MATCH_TIMEOUT."""

USUAL_PLAYERS, MOST_PLAYERS = 2, 8
MOST_SCORE = 2**43

UserId = Annotated[str, Meta(min_length=1, max_length=32)]
Level = Annotated[int, Meta(ge=1, le=100, description="an integer from 1 to 100")]
Region = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z", description="1 to 32 of `A-Z a-z 0-9 _ -`; without, any will do"),
]
GameSessionId = Annotated[str, Meta(min_length=1, max_length=64)]
GameType = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z", description="1 to 32 of `a-z 0-9 _ -`")
]


class Difficulty(Enum):
    """The kinds of play whose players meet each other."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


class MatchStatus(Enum):
    """Whether a player waits for opponents or has them."""

    MATCHING = "matching"
    MATCHED = "matched"


class Preferences(Message, frozen=True):
    """What a player would like of a match."""

    region: Region | UnsetType | None = UNSET
    players: Annotated[int, Meta(ge=2, le=MOST_PLAYERS)] | UnsetType = UNSET
    max_wait_sec: Annotated[int, Meta(ge=1, le=LONGEST_WAIT_S)] | UnsetType = UNSET


class MatchState(Message, frozen=True):
    """Where a player stands. With `matched` come `matchedUsers`, the others, and `gameSessionId`.

    With `matching` comes `estimatedMatchTime`, in seconds from now by what others waited lately, null while
    that is unknown; and from `game.status` the seconds waited, `waitTime`.
    """

    status: MatchStatus
    matched_users: list[str] | UnsetType = UNSET
    game_session_id: str | UnsetType = UNSET
    wait_time: int | UnsetType = UNSET
    estimated_match_time: int | UnsetType | None = UNSET


class Search(Message, frozen=True):
    """The opponents that a player looks for."""

    difficulty: Difficulty
    level: Level
    preferences: Preferences | None = None


@request("game.match", owner="game", reply=MatchState, errors=(FORBIDDEN, ALREADY_MATCHING, ALREADY_MATCHED))
class FindMatch(Search, frozen=True):
    """Look for opponents of the same difficulty, level and region; the longer it takes, the farther away.

    `preferences` are the `region` (any, where none is given), how many `players` there shall be in all
    (2 to 8, usually 2) and `maxWaitSec` (1 to 60, usually 60).

    Status 200 where they were found at once. Else 202, and `MATCH_FOUND` later, or `MATCH_TIMEOUT` after
    `maxWaitSec`, 60 seconds at most. The place is kept over a lost connection; who is not connected is not
    matched meanwhile. `ALREADY_MATCHED` comes with the match as `data`.
    """

    user_id: UserId | None = None


@request("game.status", owner="game", reply=MatchState, lane=Lane.HIGH, errors=(FORBIDDEN, NOT_IN_QUEUE))
class AskMatch(Message, frozen=True):
    """Ask where a player stands."""

    user_id: UserId | None = None


class MatchCancelled(Message, frozen=True):
    """The player waits no longer."""

    status: str = "cancelled"


@request(
    "game.cancel",
    owner="game",
    reply=MatchCancelled,
    lane=Lane.HIGH,
    errors=(FORBIDDEN, NOT_IN_QUEUE, ALREADY_MATCHED),
)
class CancelMatch(Message, frozen=True):
    """Wait no longer. `ALREADY_MATCHED` comes with the match as `data`: it was too late."""

    user_id: UserId | None = None


class Score(Message, frozen=True):
    """What a player reached."""

    user_id: UserId
    score: Annotated[int, Meta(ge=0, le=MOST_SCORE)]


class Finished(Message, frozen=True):
    """The session is over. `taskIds` are those under which the scores are worked on, in their order."""

    task_ids: list[str]


@request(
    "game.finish",
    owner="game",
    reply=Finished,
    gated=True,
    status=202,
    errors=(FORBIDDEN, INVALID_SCORE, SESSION_NOT_FOUND, ALREADY_FINISHED),
)
class FinishGame(Message, frozen=True):
    """End a session with its results, once: its players are free, and the results go to the ranking.

    Each result is of another player of the session; who has none has left.
    """

    game_session_id: GameSessionId
    game_type: GameType
    results: Annotated[list[Score], Meta(max_length=MOST_PLAYERS)]


@event("MATCH_FOUND")
class MatchFound(Message, frozen=True):
    """There are opponents: `matchedUsers` are the others, `region` is null where nobody has one."""

    game_session_id: str
    matched_users: list[str]
    difficulty: Difficulty
    level: int
    region: str | None


@event("MATCH_TIMEOUT")
class MatchTimeout(Message, frozen=True):
    """There were no opponents in `waitTime` seconds: the player waits no longer."""

    wait_time: int
