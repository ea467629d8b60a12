"""Players who wait for opponents, and the matches that they make."""

from storage.matches.board import MatchBoard
from storage.matches.facts import (
    DIFFICULTIES,
    MOST_LEVEL,
    Absence,
    AlreadyMatched,
    Bucket,
    Entered,
    Entry,
    Meeting,
    News,
    NotInQueue,
    Proposal,
    Session,
    Standing,
    TimedOut,
    Verdict,
    Waiter,
    Wish,
)
from storage.matches.matches import Matches

__all__ = [
    "DIFFICULTIES",
    "MOST_LEVEL",
    "Absence",
    "AlreadyMatched",
    "Bucket",
    "Entered",
    "Entry",
    "MatchBoard",
    "Matches",
    "Meeting",
    "News",
    "NotInQueue",
    "Proposal",
    "Session",
    "Standing",
    "TimedOut",
    "Verdict",
    "Waiter",
    "Wish",
]
