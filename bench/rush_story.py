"""How far players of the rush have come, of which tier they are, and what happened to each."""

from enum import IntEnum

import msgspec


class Stage(IntEnum):
    """How far a player has come."""

    OUTSIDE = 0
    CONNECTED = 1
    LOGGING_IN = 2
    WAITING = 3
    READY = 4
    IN = 5
    LOST = 6


class Story(msgspec.Struct, array_like=True):
    """What happened to a player. Times `_at` are in s since the epoch; -1 where it did not happen."""

    tid: str = ""
    login_s: float = -1
    finalize_s: float = -1
    ready_at: float = -1
    estimate_s: float = -1
    estimated_at: float = -1
    readies: int = 0
    pairs: int = 0
    updates: int = 0
    largest_gap_s: float = 0
    worse_places: int = 0
    returns: int = 0
    retries: int = 0
    failure: str = ""


TIERS = ("VIP", "PREMIUM", "NORMAL")


def tier_of(number: int) -> str:
    """The tier of a player by number: of 100, one is a VIP and five are PREMIUM."""
    if number % 100 == 0:
        return "VIP"
    return "PREMIUM" if number % 20 == 1 else "NORMAL"


class Tally(msgspec.Struct, array_like=True):
    """How many of a tier wait, how many have been admitted, and how long these waited, in all and at most."""

    waiting: int = 0
    admitted: int = 0
    waited_s: float = 0
    longest_s: float = 0

    def add(self, other: "Tally") -> None:
        """Count the other's, too."""
        self.waiting += other.waiting
        self.admitted += other.admitted
        self.waited_s += other.waited_s
        self.longest_s = max(self.longest_s, other.longest_s)
