"""How far the door is open: it slows, then closes, while what lies behind it cannot keep up. Pure."""

from enum import Enum

import msgspec

SLOW_FROM, CLOSE_FROM = 0.5, 1.0
"""Pressure behind the door from which it slows, and from which it closes."""

CALM_BELOW = 0.25
CALM_SAMPLES = 3
"""So many samples in a row must be below CALM_BELOW before the door opens one step further."""


class Opening(Enum):
    """The share of the set rate at which players are let in."""

    OPEN = 1.0
    SLOWED = 0.5
    CLOSED = 0.0


class Door(msgspec.Struct, frozen=True):
    """How far it is open, for how many samples it has been calm behind it, and why it is as it is."""

    opening: Opening = Opening.OPEN
    calm: int = 0
    reason: str = ""


def after(door: Door, pressure: float, where: str) -> Door:
    """The door after a sample in which `where` was pressed the hardest behind it."""
    reason = f"{where} is pressed to {pressure:.0%} of what it should bear"
    if pressure >= CLOSE_FROM:
        return Door(Opening.CLOSED, 0, reason)
    if pressure >= SLOW_FROM:
        # A closed door does not open to who would close it again.
        return Door(door.opening if door.opening is Opening.CLOSED else Opening.SLOWED, 0, reason)
    if door.opening is Opening.OPEN:
        return Door()
    if pressure >= CALM_BELOW:
        return Door(door.opening, 0, door.reason)
    if door.calm + 1 < CALM_SAMPLES:
        return Door(door.opening, door.calm + 1, door.reason)
    wider = Opening.SLOWED if door.opening is Opening.CLOSED else Opening.OPEN
    return Door(wider, 0, "" if wider is Opening.OPEN else "opening again, one step at a time")
