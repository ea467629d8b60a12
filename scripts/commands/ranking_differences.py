"""How `lobbyctl ranking verify` names what differs."""

from collections.abc import Iterator, Sequence
from typing import Any

from storage.boards import Board
from storage.past_boards import FrozenDifference, FrozenPlace
from storage.placing import score_of
from workers.ranking.truth import Difference

MOST_NAMED = 20


def as_json_rows(hot: Sequence[Difference], frozen: Sequence[FrozenDifference]) -> list[dict[str, Any]]:
    """The differences for programs: `board` is a key of Redis, or `frozen` a period that is in SQL."""
    rows: list[dict[str, Any]] = [
        {
            "board": each.board.key,
            "userId": each.user_id,
            "seen": _score(each.seen),
            "wanted": _score(each.wanted),
        }
        for each in hot
    ]
    return rows + [
        {
            "frozen": each.board.period.name,
            "gameType": each.board.game_type,
            "userId": each.user_id,
            "seen": _frozen(each.seen),
            "wanted": _frozen(each.wanted),
        }
        for each in frozen
    ]


def say_differences(hot: Sequence[Difference], frozen: Sequence[FrozenDifference], repaired: int) -> None:
    """Print the differences for people, the first of many."""
    count = len(hot) + len(frozen)
    if not count:
        print("The boards and SQL agree.")
        return
    for _, line in zip(range(MOST_NAMED), _lines(hot, frozen), strict=False):
        print(line)
    if count > MOST_NAMED:
        print(f"… and {count - MOST_NAMED:,} more")
    print(f"{count:,} differences, {repaired:,} repaired.")


def _lines(hot: Sequence[Difference], frozen: Sequence[FrozenDifference]) -> Iterator[str]:
    for each in hot:
        seen, wanted = (_score(number) for number in (each.seen, each.wanted))
        yield _line(
            each.board.key,
            each.user_id,
            None if seen is None else f"{seen:,}",
            None if wanted is None else f"{wanted:,}",
        )
    for row in frozen:
        name = f"frozen {_name(row.board)}"
        if row.user_id is None:
            yield f"{name}: says it has {row.seen} players and should have {row.wanted}"
        else:
            yield _line(name, row.user_id, _words(row.seen), _words(row.wanted))


def _line(board: str, user_id: str, seen: str | None, wanted: str | None) -> str:
    has = "is not there" if seen is None else f"has {seen}"
    should = "should not be there" if wanted is None else f"should have {wanted}"
    return f"{board}: {user_id} {has} and {should}"


def _name(board: Board) -> str:
    return f"{board.period.name} {board.game_type or '(all games)'}"


def _words(place: FrozenPlace | int | None) -> str | None:
    if not isinstance(place, FrozenPlace):
        return None
    return f"{place.score:,} at place {place.place}, rank {place.rank}"


def _frozen(place: FrozenPlace | int | None) -> Any:
    return place._asdict() if isinstance(place, FrozenPlace) else place


def _score(number: float | None) -> int | None:
    return None if number is None else score_of(number)
