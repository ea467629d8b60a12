"""The matchmaker: has players wait, makes matches of them and ends waits, all that gathered in one call.

Any number of workers run one (docs/decisions/0023). Each knows from the feed who waits everywhere. Who lets
a player wait looks at once for opponents among all who came before, so that of two players who come to two
workers it is the later one's that sees both; a claim that meets another's is refused whole and tried again
without who is gone. What comes with time (wider searches, ends of waits, untold matches) is done by the one
that holds the lease.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import NamedTuple

import structlog

from protocol.envelope import Address
from storage.errors import StoreAway
from storage.matches import Entered, Entry, MatchBoard, Matches, Meeting, News, Proposal, Verdict, Wish
from storage.tickets import Record
from workers.matching.crowd import Crowd, Found
from workers.matching.messenger import Messenger

log = structlog.get_logger(__name__)

MOST_ARRIVALS = 200
"""Players that one call lets wait: it keeps Redis for 5 ms then, and others wait meanwhile."""

MOST_MATCHES = 100
"""Matches that one call claims, for the same reason."""

MOST_ENDS = 200
TICK_S = 0.1
IDLE_TICK_S = 0.25
SWEEP_SHARE = 0.2
"""Of the worker's time at most that sweeps take."""

LEASE_S = 2.0
AHEAD_S = 0.25
"""Whose time is up before the next look is told now: nobody waits longer than they said."""

SECOND_S = 1.0
UNTOLD_S = 1.0
MOST_UNTOLD = 100
MOST_AWAY = 500
AWAY_PAUSE_S = 0.2


class Arrival(NamedTuple):
    """A request to wait, and the connection that it came from."""

    wish: Wish
    record: Record
    origin: Address
    answer: asyncio.Future[Entered]


class _Entering(NamedTuple):
    """Players who are being let in, and what comes of it."""

    arrivals: Sequence[Arrival]
    answer: asyncio.Task[tuple[News, list[Entered]]]


@dataclass(slots=True)
class _Asking:
    """A request whose player waits, while it is seen whether they need to."""

    arrival: Arrival
    entered: Entered


class Matchmaker:
    """Makes matches for as long as the process lives. `who` names the process.

    `sweeps` says whether it is this one that sees to what comes with time.
    """

    def __init__(
        self, matches: Matches, board: MatchBoard, crowd: Crowd, messenger: Messenger, who: str
    ) -> None:
        self._matches = matches
        self._board = board
        self._crowd = crowd
        self._messenger = messenger
        self._who = who
        self._cursor = ""
        self._is_sure = True
        self._ahead_ms = 0.0
        self._arrivals: list[Arrival] = []
        self._entering: _Entering | None = None
        self._asking: dict[int, _Asking] = {}
        self._wake = asyncio.Event()
        self._tick_at_s = self._second_at_s = 0.0
        self.sweeps = False

    async def enter(self, wish: Wish, record: Record, origin: Address) -> Entered:
        """Have a player wait, and look for opponents at once.

        Answers `MATCHED` with the meeting where there were some, else that the player waits, or why they
        cannot. Raises StoreAway.
        """
        answer: asyncio.Future[Entered] = asyncio.get_running_loop().create_future()
        self._arrivals.append(Arrival(wish, record, origin, answer))
        self._wake.set()
        return await answer

    async def run(self) -> None:
        """Take what has gathered, again and again. Runs as a side task."""
        while True:
            try:
                await self._turn()
            except StoreAway as error:
                self._fail(error)
                await asyncio.sleep(AWAY_PAUSE_S)
            if not self._arrivals and self._entering is None:
                await self._pause()

    async def stop(self) -> None:
        """Let another worker sweep."""
        try:
            await self._matches.leave_sweeping(self._who)
        except StoreAway as error:
            log.warning("cannot leave the sweeping", cause=str(error))

    async def _pause(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(max(0.0, self._tick_at_s - _clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _turn(self) -> None:
        if self._entering is None:
            self._begin_to_enter()
        if self._entering is not None:
            await self._let_in(self._entering)
        # Both bring news from where the last ended: one at a time does.
        if self._entering is None and self._is_time():
            await self._tick()

    # Arrivals.

    def _begin_to_enter(self) -> None:
        """Have Redis let the next players wait, if there are some."""
        some, self._arrivals = self._arrivals[:MOST_ARRIVALS], self._arrivals[MOST_ARRIVALS:]
        if some:
            asked = [(arrival.wish, arrival.record) for arrival in some]
            answer = asyncio.ensure_future(self._matches.enter(self._cursor, asked))
            self._entering = _Entering(some, answer)

    async def _let_in(self, entering: _Entering) -> None:
        self._entering = None
        try:
            news, outcomes = await entering.answer
            await self._hear(news)
        except StoreAway as error:
            for arrival in entering.arrivals:
                _settle(arrival, error)
            raise
        newcomers = []
        for arrival, entered in zip(entering.arrivals, outcomes, strict=True):
            if entered.what is Entry.ENTERED or entered.what is Entry.WAITING:
                self._asking[entered.entry] = _Asking(arrival, entered)
                newcomers.append(entered.entry)
            else:
                _settle(arrival, entered)
        if not self._is_time():
            # Redis lets the next in while these are paired: else each waits for the other by turns.
            self._begin_to_enter()
            await asyncio.sleep(0)  # said
            await asyncio.sleep(0)  # and sent: the loop writes when a turn of it ends
        await self._match(newcomers)

    async def _match(self, entries: Iterable[int]) -> None:
        """Find these players' matches and claim them; who has none waits."""
        found = self._found(entries)
        asked_for = {player.entry for each in found for player in each.match.players}
        for entry in self._asking.keys() - asked_for:
            self._answer_waiting(entry)
        await self._claim(found)

    def _found(self, entries: Iterable[int]) -> list[Found]:
        now_ms = self._now_ms()
        met = (self._crowd.meet(entry, now_ms) for entry in entries)
        return [found for found in met if found is not None]

    async def _claim(self, found: Sequence[Found]) -> None:
        """Make these matches, and others of those whose match was refused."""
        while found:
            again: list[int] = []
            for first in range(0, len(found), MOST_MATCHES):
                some = found[first : first + MOST_MATCHES]
                proposals = list(map(_proposal, some))
                verdicts = await self._matches.claim(proposals)
                for each, proposal, verdict in zip(some, proposals, verdicts, strict=True):
                    again += self._crowd.settle(each, verdict)
                    if verdict.is_made:
                        self._tell(proposal, verdict)
            found = self._found(again)
        for entry in list(self._asking):
            self._answer_waiting(entry)

    def _tell(self, proposal: Proposal, verdict: Verdict) -> None:
        """Answer those who ask, and tell the others."""
        user_ids = [user_id for user_id, _ in proposal.players]
        log.debug("match", session=proposal.session_id, users=user_ids)
        others = []
        for (user_id, entry), address in zip(proposal.players, verdict.players, strict=True):
            asking = self._asking.pop(entry, None)
            if asking is not None:
                rest = tuple(each for each in user_ids if each != user_id)
                met = Entered(Entry.MATCHED, entry, Meeting(proposal.session_id, rest))
                _settle(asking.arrival, met)
            if isinstance(address, Address) and (asking is None or asking.arrival.origin != address):
                others.append((user_id, address))
        self._messenger.tell_match(proposal, others)

    def _answer_waiting(self, entry: int) -> None:
        asking = self._asking.pop(entry)
        _settle(asking.arrival, asking.entered)

    def _fail(self, error: StoreAway) -> None:
        """What was under way is unknown: who asked is told to ask again, and the queues are read anew."""
        log.warning("cannot match", cause=str(error))
        for entry in list(self._asking):
            _settle(self._asking.pop(entry).arrival, error)
        self._is_sure = False

    # Time.

    def _is_time(self) -> bool:
        return _clock() >= self._tick_at_s

    async def _tick(self) -> None:
        began_s = _clock()
        before_ms = time.time() * 1000
        news, self.sweeps, now_ms = await self._matches.tick(self._cursor, self._who, LEASE_S)
        # Half of the way there and back is the answer's: Redis' clock is the one that counts.
        self._ahead_ms = now_ms - (before_ms + time.time() * 1000) / 2
        await self._hear(news)
        await self._messenger.note_told()
        if self.sweeps:
            await self._claim(list(self._crowd.sweep(self._now_ms())))
            await self._end_waits()
        if began_s >= self._second_at_s:
            self._second_at_s = began_s + SECOND_S
            await self._look_after()
        took_s = _clock() - began_s
        usual_s = TICK_S if self.sweeps and len(self._crowd) else IDLE_TICK_S
        self._tick_at_s = _clock() + max(usual_s, took_s / SWEEP_SHARE - took_s)

    async def _end_waits(self) -> None:
        while ended := await self._matches.expire(AHEAD_S, MOST_ENDS):
            for each in ended:
                self._messenger.tell_timeout(each)

    async def _look_after(self) -> None:
        """See who is back, and to the matches whose maker died before it told of them."""
        away = list(self._crowd.away.items())[:MOST_AWAY]
        if away:
            present = await self._board.present([user_id for _, user_id in away])
            back = self._crowd.back([entry for entry, user_id in away if user_id in present])
            await self._match(back)
        if self.sweeps:
            for session_id, addresses in await self._matches.untold(UNTOLD_S, MOST_UNTOLD):
                session = await self._board.session(session_id)
                if session is not None:
                    self._messenger.tell_session(session, addresses)

    # Knowing.

    async def _hear(self, news: News) -> None:
        self._cursor = news.cursor
        if news.is_lost or not self._is_sure:
            self._crowd.replace(await self._board.waiting())
            self._is_sure = True
        else:
            self._crowd.hear(news.changes)

    def _now_ms(self) -> int:
        return int(time.time() * 1000 + self._ahead_ms)


def _proposal(found: Found) -> Proposal:
    match = found.match
    return Proposal(
        session_id=f"game_{token_hex(8)}",
        difficulty=found.difficulty,
        level=match.level,
        region=match.region,
        cost=round(match.cost, 3),
        players=tuple((player.user_id, player.entry) for player in match.players),
    )


def _settle(arrival: Arrival, outcome: Entered | StoreAway) -> None:
    if arrival.answer.done():  # whoever awaited it was cancelled
        return
    if isinstance(outcome, StoreAway):
        arrival.answer.set_exception(outcome)
    else:
        arrival.answer.set_result(outcome)


def _clock() -> float:
    return asyncio.get_running_loop().time()
