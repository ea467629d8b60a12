"""What users hear of their own scores once these are on the boards: `RANKING_UPDATE`.

Each score is told with its user's rank on the all-time board of all games, whether or not it changed it. Of
the other boards of all games those are told that changed, with the score that is now on them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from protocol.messages.ranking import RankingUpdate
from storage.boards import Board, Boards, Raised
from storage.periods import ALL_TIME
from storage.placing import score_of
from storage.scores import Accepted

ALL_GAMES = Board(ALL_TIME)


class Change(NamedTuple):
    """A user's score on a board now, and what it was before a batch; None is none."""

    score: int
    before: int | None


Changes = Mapping[tuple[str, Board], Change]


async def updates_of(
    boards: Boards, scores: Sequence[Accepted], raised: Sequence[Raised]
) -> Mapping[str, list[RankingUpdate]]:
    """What to tell each user of these scores, which raised their places so."""
    changes = _changes(raised)
    still = {score.user_id for score in scores if (score.user_id, ALL_GAMES) not in changes}
    bests = await _bests(boards, sorted(still))
    # As they would be now: of others in the same batch nobody can say who came first.
    wanted = {
        (board, score) for (_, board), change in changes.items() for score in change if score is not None
    }
    ranks = await boards.ranks(wanted | {(ALL_GAMES, best) for best in bests.values()})
    found: dict[str, list[RankingUpdate]] = defaultdict(list)
    for score in scores:
        change = changes.get((score.user_id, ALL_GAMES))
        if change is not None:
            found[score.user_id].append(_update(ALL_GAMES, score, change, ranks))
        elif (best := bests.get(score.user_id)) is not None:
            rank = ranks[ALL_GAMES, best]
            found[score.user_id].append(_told(ALL_GAMES, score, rank, rank))
    reached = {(score.user_id, score.score): score for score in reversed(scores)}
    for (user_id, board), change in changes.items():
        if board != ALL_GAMES:
            found[user_id].append(_update(board, reached[user_id, change.score], change, ranks))
    return found


async def _bests(boards: Boards, user_ids: Sequence[str]) -> Mapping[str, int]:
    """What users have on the all-time board of all games, those that have something."""
    numbers = await boards.numbers(ALL_GAMES, user_ids)
    known = zip(user_ids, numbers, strict=True)
    return {user_id: score_of(number) for user_id, number in known if number is not None}


def _changes(raised: Sequence[Raised]) -> Changes:
    """What a batch came to on each board: it may have raised a user several times, by several games."""
    changes: dict[tuple[str, Board], Change] = {}
    for each in raised:
        for board, before in each.changed:
            first = changes.get((each.user_id, board))
            changes[each.user_id, board] = Change(each.score, before if first is None else first.before)
    return changes


def _update(
    board: Board, score: Accepted, change: Change, ranks: Mapping[tuple[Board, int], int]
) -> RankingUpdate:
    before = change.before
    # They have passed it themselves.
    previous = None if before is None else ranks[board, before] - 1
    return _told(board, score, ranks[board, change.score], previous)


def _told(board: Board, score: Accepted, rank: int, previous: int | None) -> RankingUpdate:
    return RankingUpdate(
        type=board.period.type,
        period=board.period.name,
        task_id=score.task_id,
        score=score.score,
        rank=rank,
        previous_rank=previous,
    )
