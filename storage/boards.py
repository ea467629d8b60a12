"""The noun "board": the best scores of a period, of one game or of all, in Redis.

SQL is the truth (`storage/scores.py`); a board can be rebuilt from it at any time, while it is used. Every
change is one Function in `functions/boards.lua`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

from protocol.messages.ranking import BoardType
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.gathering import Gathering
from storage.periods import Period, Periods
from storage.placing import placed, score_of
from storage.wire import Argument, Wire

LIBRARY = Library("boards")

MOST_RAISED = 100
"""Scores of one game and day in one call: it keeps Redis for 2 ms then, and others wait meanwhile."""

MOST_RANKED = 200
"""Ranks that one call counts, for the same reason."""

MOST_FILLED = 1000
"""Scores of one board in one call of `fill`, for the same reason."""


class Board(NamedTuple):
    """Which board; `game_type` is None for all games."""

    period: Period
    game_type: str | None = None

    @property
    def key(self) -> str:
        """The Redis key."""
        return keys.board(self.period.type.value, self.period.name, self.game_type)


class Best(NamedTuple):
    """A user's score of a game and when it was reached, in ms since the epoch."""

    user_id: str
    score: int
    reached_ms: int


class Group(NamedTuple):
    """Scores of one game that were reached in the same periods, one a user."""

    game_type: str
    periods: Periods
    scores: Sequence[Best]


class Raised(NamedTuple):
    """A score that was written, and what its user had before on the boards of all games.

    `before` is in the order of BoardType; None is no score.
    """

    user_id: str
    score: int
    periods: Periods
    before: Sequence[int | None]

    @property
    def score_before(self) -> int | None:
        """What the user had on the all-time board of all games."""
        return self.before[0]

    @property
    def has_risen(self) -> bool:
        """Whether it is better than what was on that board."""
        return self.score_before is None or self.score > self.score_before

    @property
    def changed(self) -> Iterator[tuple[Board, int | None]]:
        """The boards of all games on which the user has more than before, and what that was."""
        for board_type, before in zip(BoardType, self.before, strict=True):
            if before is None or self.score > before:
                yield Board(self.periods[board_type]), before


class Place(NamedTuple):
    """A user's place on a board; equal scores share a rank."""

    rank: int
    user_id: str
    score: int


class Standing(NamedTuple):
    """Where a user stands. `rank`, `score` and `place` (from 0, no two alike) are None without a score."""

    players: int
    rank: int | None = None
    score: int | None = None
    place: int | None = None


class Page(NamedTuple):
    """A part of a board to be asked for."""

    board: Board
    offset: int
    limit: int


class Changed(NamedTuple):
    """Boards to be told of now, as type and period, and in how many seconds the next is due, if any."""

    boards: Sequence[tuple[BoardType, str]]
    due_s: float | None


class RemovedLost(Exception):
    """Redis does not know who is removed: it lost its data. `Boards.remember_removed` helps."""


class Boards:
    """The boards of one system. Every method raises StoreAway.

    `keep_past_s` is how long a board stays in Redis after its period's end.
    """

    def __init__(self, redis: Wire, keep_past_s: float) -> None:
        self._redis = redis
        self._keep_past_ms = int(keep_past_s * 1000)
        self._standings = Gathering(self._look_up)
        self._noted = asyncio.Event()

    async def raise_scores(self, groups: Sequence[Group]) -> list[Raised]:
        """Write scores to all their boards, where they are better than what is there.

        Answers those that were better on some board, in the order of the groups. Raises RemovedLost.
        """
        raised: list[Raised] = []
        for group in groups:
            for start in range(0, len(group.scores), MOST_RAISED):
                raised += await self._raise(group, group.scores[start : start + MOST_RAISED])
        return raised

    async def _raise(self, group: Group, scores: Sequence[Best]) -> list[Raised]:
        boards = _boards_of(group)
        periods = [board.period for board in boards[:4]]
        names = [keys.RANKING_REMOVED, keys.RANKING_CHANGED, *(board.key for board in boards)]
        args: list[Argument] = [period.name for period in periods[1:]]
        args += [self._expires_ms(period) for period in periods[1:]]
        for user_id, score, reached_ms in scores:
            args.append(user_id)
            args += [repr(placed(score, reached_ms, period)) for period in periods]
        answer = await self._call("board_raise", names, args)
        if answer is None:
            raise RemovedLost
        is_first, befores = answer
        if is_first:
            self._noted.set()
        return [
            Raised(best.user_id, best.score, group.periods, [_score(number) for number in before])
            for best, before in zip(scores, befores, strict=True)
            if before
        ]

    async def fill(self, period: Period, game_types: Sequence[str | None], scores: Sequence[Best]) -> None:
        """Write scores to these boards of a period, where they are better than what is there.

        Raises RemovedLost.
        """
        names = [keys.RANKING_REMOVED, *(Board(period, game_type).key for game_type in game_types)]
        args: list[Argument] = [self._expires_ms(period)]
        for user_id, score, reached_ms in scores:
            args += [repr(placed(score, reached_ms, period)), user_id]
        if await self._call("board_fill", names, args) is None:
            raise RemovedLost

    async def remember_removed(self, user_ids: Set[str]) -> None:
        """Tell Redis who is removed, as SQL says."""
        await self._execute("SADD", keys.RANKING_REMOVED, "", *sorted(user_ids))

    async def removed(self) -> Set[str]:
        """Whom Redis knows as removed."""
        members = await self._execute("SMEMBERS", keys.RANKING_REMOVED)
        return {member.decode() for member in members if member}

    async def remove(self, user_id: str, boards: Sequence[Board]) -> int:
        """Take a user off these boards, and keep them off all; from how many. Raises RemovedLost."""
        names = [keys.RANKING_REMOVED, *(board.key for board in boards)]
        answer = await self._call("board_remove", names, [user_id])
        if answer is None:
            raise RemovedLost
        return int(answer)

    async def restore(self, user_id: str) -> None:
        """Let a removed user's scores count again. What they had is for `fill`."""
        await self._execute("SREM", keys.RANKING_REMOVED, user_id)

    async def pages(self, pages: Set[Page]) -> dict[Page, list[Place]]:
        """Parts of boards, best first, all read together."""
        asked = list(pages)
        args: list[Argument] = []
        for page in asked:
            args += [page.offset, page.limit]
        answers = await self._call("board_pages", [page.board.key for page in asked], args)
        return {
            page: _places(page.offset, first, rows)
            for page, (first, rows) in zip(asked, answers, strict=True)
        }

    async def standing(self, board: Board, user_id: str) -> Standing:
        """Where a user stands. All that are asked for in one turn of the loop are read together."""
        return await self._standings.get((board, user_id)) or Standing(0)

    async def ranks(self, wanted: Set[tuple[Board, int]]) -> Mapping[tuple[Board, int], int]:
        """The ranks that scores have on boards, or would have."""
        names = {board: board.key for board, _ in wanted}
        # Neighbours are found on the same way through a board.
        asked = sorted(wanted, key=lambda question: (names[question[0]], question[1]))
        parts = [asked[start : start + MOST_RANKED] for start in range(0, len(asked), MOST_RANKED)]
        answers = await asyncio.gather(*(self._ranks(part, names) for part in parts))
        return dict(zip(asked, chain.from_iterable(answers), strict=True))

    async def _ranks(self, asked: Sequence[tuple[Board, int]], names: Mapping[Board, str]) -> list[int]:
        scores: dict[str, list[int]] = defaultdict(list)
        for board, score in asked:
            scores[names[board]].append(score)
        args: list[Argument] = []
        for some in scores.values():
            args += [len(some), *(score + 1 for score in some)]
        answer: list[int] = await self._call("board_ranks", list(scores), args)
        return answer

    async def note_changed(self, boards: Iterable[Board]) -> None:
        """Have the tops of these boards told, of those of all games, as if scores had changed them."""
        args: list[Argument] = []
        for period, game_type in boards:
            if game_type is None:
                args += [period.type.value, period.name]
        await self._call("board_note", [keys.RANKING_CHANGED], args)

    async def take_changed(self, least_s: float) -> Changed:
        """Boards of all games whose top has changed and was not taken within `least_s` seconds.

        Of all that ask, one gets each.
        """
        due_ms, *answer = await self._call("board_changed", [keys.RANKING_CHANGED], [int(least_s * 1000)])
        names = [part.decode() for part in answer]
        return Changed(
            boards=[(BoardType(names[i]), names[i + 1]) for i in range(0, len(names), 2)],
            due_s=None if due_ms < 0 else due_ms / 1000,
        )

    async def until_changed(self, limit_s: float) -> None:
        """Wait for a score of this process to change a top that awaits its telling by nobody's score before.

        `limit_s` seconds at most. So of all processes one is woken, by the first change of a board.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._noted.wait()
        self._noted.clear()

    async def numbers(self, board: Board, user_ids: Sequence[str]) -> list[float | None]:
        """The numbers that users have on a board."""
        if not user_ids:
            return []
        answer = await self._execute("ZMSCORE", board.key, *user_ids)
        return [None if number is None else float(number) for number in answer]

    async def scan(self, board: Board, cursor: int, count: int) -> tuple[int, Mapping[str, float]]:
        """Some users of a board and their numbers, and the cursor to go on with, 0 at the end."""
        following, rows = await self._execute("ZSCAN", board.key, cursor, "COUNT", count)
        return int(following), {rows[i].decode(): float(rows[i + 1]) for i in range(0, len(rows), 2)}

    async def correct(self, board: Board, wrong: Sequence[tuple[str, float | None, float | None]]) -> int:
        """Set numbers, each from what was seen to what is wanted; what changed meanwhile stays."""
        args: list[Argument] = []
        for user_id, seen, wanted in wrong:
            args += [
                user_id,
                "" if seen is None else repr(seen),
                "" if wanted is None else repr(wanted),
            ]
        return int(await self._call("board_correct", [board.key], args))

    async def _look_up(self, wanted: Set[tuple[Board, str]]) -> dict[tuple[Board, str], Standing]:
        asked = list(wanted)
        names = [board.key for board, _ in asked]
        answers = await self._call("board_standings", names, [user_id for _, user_id in asked])
        return {question: _standing(answer) for question, answer in zip(asked, answers, strict=True)}

    def _expires_ms(self, period: Period) -> int:
        return 0 if period.ends_ms is None else period.ends_ms + self._keep_past_ms

    async def _execute(self, *command: Argument) -> Any:
        with redis_away_is_store_away():
            return await self._redis.execute_command(*command)

    async def _call(self, function: str, names: Sequence[str], args: Sequence[Argument]) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


def _boards_of(group: Group) -> list[Board]:
    """All time, day, week and month of all games, then of the group's own."""
    periods = [group.periods[board_type] for board_type in BoardType]
    return [Board(period, game_type) for game_type in (None, group.game_type) for period in periods]


def _score(number: bytes) -> int | None:
    return score_of(float(number)) if number else None


def _standing(answer: Sequence[Any]) -> Standing:
    if len(answer) == 1:
        return Standing(answer[0])
    players, number, rank, place = answer
    return Standing(players, rank, score_of(float(number)), place)


def _places(offset: int, first: int, rows: Sequence[bytes]) -> list[Place]:
    """Ranks along a page whose first user has the rank `first`: equal scores share one."""
    places: list[Place] = []
    rank = first
    for i in range(0, len(rows), 2):
        score = score_of(float(rows[i + 1]))
        if places and score != places[-1].score:
            rank = offset + i // 2 + 1
        places.append(Place(rank, rows[i].decode(), score))
    return places
