"""What is known of players who wait and of their matches, and how the Functions say it.

What is made for each player is a Struct: a frozen dataclass takes ten times as long to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from protocol.envelope import Address
from storage.tickets import address_of

DIFFICULTIES = ("easy", "medium", "hard")
MOST_LEVEL = 100


class Wish(msgspec.Struct, frozen=True):
    """What a player asks for. `region` is "" for any, `size` how many play, this one included."""

    user_id: str
    difficulty: str
    level: int
    region: str
    size: int
    wait_ms: int
    skill: float = 0.0


class Waiter(msgspec.Struct, frozen=True):
    """A player who waits. `entry` names this stay and is never used twice; time in ms since the epoch."""

    user_id: str
    entry: int
    difficulty: str
    level: int
    region: str
    size: int
    since_ms: int
    skill: float


@dataclass(frozen=True, slots=True)
class News:
    """What the feed has since it was last looked at: who came, and the entries of who went, in order.

    `is_lost` says that it has not all: the queues are to be read anew, and then on from `cursor`.
    """

    cursor: str
    is_lost: bool
    changes: Sequence[Waiter | int]


@dataclass(frozen=True, slots=True)
class Meeting:
    """A match as one of its players sees it."""

    session_id: str
    others: tuple[str, ...]


class Entry(Enum):
    """What became of a request to wait; the last three are repeats of one that did, and what became of it."""

    ENTERED = b"entered"
    ALREADY_MATCHING = b"already matching"
    ALREADY_MATCHED = b"already matched"
    WAITING = b"waiting"
    MATCHED = b"matched"
    LEFT = b"left"


class Entered(msgspec.Struct, frozen=True):
    """What a request to wait came to. `expected_ms` is how long others waited lately, None while unknown."""

    what: Entry
    entry: int = 0
    meeting: Meeting | None = None
    expected_ms: float | None = None


class Proposal(msgspec.Struct, frozen=True):
    """Players who are to meet, by user id and entry, the oldest first. `cost` is how unequal they are."""

    session_id: str
    difficulty: str
    level: int
    region: str
    cost: float
    players: tuple[tuple[str, int], ...]


class Absence(Enum):
    """Why a player cannot be in a match: no longer waiting by this entry, or not connected now."""

    GONE = b"gone"
    AWAY = b"away"


class Verdict(msgspec.Struct, frozen=True):
    """Whether a proposal has become a match; for each player, in order, the connection or why not."""

    is_made: bool
    players: tuple[Address | Absence, ...]


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A player whose time was up; `address` is the connection, None when there is none."""

    user_id: str
    waited_ms: int
    address: Address | None


@dataclass(frozen=True, slots=True)
class Session:
    """A session of play. Times in ms since the epoch."""

    session_id: str
    difficulty: str
    level: int
    region: str
    cost: float
    players: tuple[str, ...]
    created_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a player stands: waiting, or in the match `meeting`. `expected_ms` as in Entered."""

    waiter: Waiter
    meeting: Meeting | None
    waited_ms: int
    left_ms: int
    expected_ms: float | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """A queue now and lately. `wait_ms` and `cost` are averages that follow the newest, None at first."""

    difficulty: str
    level: int
    waiting: int
    oldest_ms: int
    matched: int
    timed_out: int
    wait_ms: float | None
    cost: float | None


class NotInQueue(Exception):
    """The player neither waits nor plays."""


class AlreadyMatched(Exception):
    """The player is in a match. Holds it."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(f"In session {meeting.session_id} already.")
        self.meeting = meeting


# As the Functions answer.


def news(answer: Any) -> News:
    """What the feed has."""
    cursor, is_lost, parts = answer
    changes: list[Waiter | int] = []
    for user_id, row in zip(parts[::2], parts[1::2], strict=True):
        changes.append(waiter(user_id, row) if b"|" in row else int(row))
    return News(cursor.decode(), is_lost == 1, changes)


def waiter(user_id: bytes, row: bytes) -> Waiter:
    """A player who waits."""
    entry, difficulty, level, region, size, since_ms, skill = row.decode().split("|")
    return Waiter(
        user_id.decode(), int(entry), difficulty, int(level), region, int(size), int(since_ms), float(skill)
    )


def meeting(session_id: bytes, others: bytes) -> Meeting:
    """A match, as one of its players has it."""
    return Meeting(session_id.decode(), tuple(others.decode().split(",")))


def entered(answer: Any) -> Entered:
    """What a request to wait came to."""
    what = Entry(answer[0])
    if what is Entry.LEFT:
        return Entered(what)
    if what is Entry.MATCHED or what is Entry.ALREADY_MATCHED:
        return Entered(what, int(answer[1]), meeting(answer[2], answer[3]))
    expected = answer[2] if what is Entry.ENTERED else b""
    return Entered(what, int(answer[1]), expected_ms=number(expected))


def presence(answer: bytes) -> Address | Absence:
    """Where a player is, or why not there."""
    address = None if answer in {b"gone", b"away"} else address_of(answer)
    return Absence(answer) if address is None else address


def number(text: bytes | None) -> float | None:
    """A number that may be missing."""
    return float(text) if text else None
