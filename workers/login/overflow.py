"""A waiting room that is full: who is turned away before it costs anything, and when they are to return."""

import random

from protocol.errors import QUEUE_FULL, RequestError
from storage.tickets import RoomFull, Tickets
from workers.login.admission import Admission

SOONEST_MS = 1_000
LONGEST_MS = 3_600_000
"""For how long returns are spread at most, and while nobody is let in: nobody waits outside for longer."""


def return_ms(total_waiting: int, rate_per_minute: float) -> int:
    """When one of those outside is to return, in ms: at random within the time that the room needs to drain.

    As places become free all the while, no more return each second than there are places for, unless more are
    outside than inside.
    """
    drain_ms = LONGEST_MS
    if rate_per_minute > 0:
        drain_ms = min(LONGEST_MS, int(total_waiting * 60_000 / rate_per_minute))
    return random.randint(SOONEST_MS, max(SOONEST_MS, drain_ms))


class Overflow:
    """Turns away whom a full room cannot take. `most` players wait in it."""

    def __init__(self, tickets: Tickets, admission: Admission, most: int) -> None:
        self._tickets = tickets
        self._admission = admission
        self._most = most

    async def refuse_early(self, user_id: str) -> None:
        """Turn a user without a ticket away while the room is full. Raises RequestError or StoreAway.

        Before the password is looked at: to hash those of a flood would keep members from coming back. So
        who gives a wrong password may learn that the user waits.
        """
        if self._admission.waiting < self._most:
            return
        waiting, has_ticket = await self._tickets.standing_room(user_id)
        if waiting >= self._most and not has_ticket:
            raise await self.refusal(RoomFull(waiting))

    async def refusal(self, full: RoomFull) -> RequestError:
        """What to answer to who is turned away."""
        rate = await self._tickets.total_rate()
        return RequestError(QUEUE_FULL, str(full), return_ms(full.total_waiting, rate))
