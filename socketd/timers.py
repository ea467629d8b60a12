"""When to look at a connection again: one wheel for all of them."""

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketd.connection import Connection


SLOT_S = 0.25


class Wheel:
    """Connections by the slot of time in which they are due: looking at all each time costs a core."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Connection]] = defaultdict(set)
        self._turned = 0

    def put(self, connection: "Connection", due_s: float) -> None:
        """Have `connection` come up within a slot after `due_s`. Take it out of another slot first."""
        connection.due = max(int(due_s / SLOT_S), self._turned) + 1
        self._slots[connection.due].add(connection)

    def take(self, connection: "Connection") -> None:
        """Have it not come up any more."""
        slot = self._slots.get(connection.due)
        if slot is not None:
            slot.discard(connection)

    def turn(self, now_s: float) -> list["Connection"]:
        """Take out the connections that are due by now."""
        due: list[Connection] = []
        self._turned = int(now_s / SLOT_S)
        for slot in [slot for slot in self._slots if slot <= self._turned]:
            due.extend(self._slots.pop(slot))
        return due
