"""The players of the state machine of the waiting room: what they ask for, and what they must be answered."""

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage.holders import Entrance
from storage.sessions import NotReady, NotYours, SignedIn
from storage.tickets import Asker, Place, RoomFull, TakenOver, TicketNotFound, Tier
from tests.loop import TimedLoop
from tests.storage.order import Known
from tests.storage.promises import LIVE, Promises
from tests.storage.room import Room, Seen

T = TypeVar("T")

USERS = {"ada": Tier.NORMAL, "b.o-b": Tier.VIP, "c_d": Tier.PREMIUM, "0": Tier.NORMAL}
MOST_WAITING = 3
STALL_MS = 30_000
"""Longer than a test's machine stands still."""

users = st.sampled_from(list(USERS))
picks = st.integers(min_value=0, max_value=12)
connections = st.sampled_from([Address("SOCK001", 1), Address("SOCK001", 2), Address("SOCK002", 1)])
rates = st.sampled_from([3, 10, 16, 600, 6000])
"""Players admitted a minute: some for which the window, and some for which the bucket is the narrower one."""

behinds = st.sampled_from([0, 0, 0, 15, 35])
"""By how many ms a request was asked for earlier than its order says; requests are 10 ms apart."""


class Players(RuleBasedStateMachine):
    """Some users ask from a few connections, now and then too late, with an old client id, or again."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner(loop_factory=TimedLoop)
        self._room = self._run(self._open(url))
        self._rate = 0
        self._promises = Promises()
        self._known = self._promises.known
        self._sessions: dict[str, tuple[Address, Address | None]] = {}
        self._was = self._look()

    def teardown(self) -> None:
        self._run(self._room.close())
        self._runner.close()

    @invariant()
    def everything_promised_holds(self) -> None:
        now = self._look()
        self._promises.check(self._was, now, self._rate)
        ledger = self._run(self._room.tickets.ledger())
        assert (ledger["waiting"], ledger["ready"]) == (len(now.waiting) + len(now.away), len(now.ready))
        for counter in ("issued", "consumed", "cancelled", "expired"):
            assert ledger[counter] == now.count(counter)
        self._was = now

    @initialize(rate=rates, count=st.integers(0, MOST_WAITING))
    def open_the_door(self, rate: int, count: int) -> None:
        self._run(self._room.settings.configure(rate, 1))
        self._rate = rate
        for number, user_id in enumerate(list(USERS)[:count]):
            self._come(user_id, Address("SOCK003", number))

    @rule(user_ids=st.lists(users, min_size=1, max_size=4, unique=True), connection=connections)
    def come_together(self, user_ids: list[str], connection: Address) -> None:
        for user_id in user_ids:
            self._come(user_id, connection)

    def _come(self, user_id: str, connection: Address) -> None:
        asker, tier = self._asker(connection, 0), USERS[user_id]
        got = self._ask(self._room.login(user_id, asker, most_waiting=MOST_WAITING, tier=tier))
        if not isinstance(got, RoomFull):
            known = self._known.setdefault(got.tid, Known(got.tid, user_id))
            known.clients.append(got.client_id)
            self._run(self._room.tickets.stream(got.tid, got.client_id, self._asker(connection, 0)))

    @rule(user_id=users, connection=connections, behind=behinds, again=st.booleans())
    def log_in(self, user_id: str, connection: Address, behind: int, again: bool) -> None:
        before, asker, place = self._was, self._asker(connection, behind), self._room.place()
        call = (user_id, asker, Entrance(), MOST_WAITING, self._room.record(), USERS[user_id])
        held = before.holders.get(user_id)
        got = self._ask(self._room.tickets.issue(place, *call))
        if held is not None:
            self._check_handed_over(before.tickets[held], place[1], asker, got)
            assert (got.tid, got.client_id) == (held, place[1])
            self._check_place(held, got)
        elif len(before.waiting) >= MOST_WAITING:
            assert isinstance(got, RoomFull)
            assert got.total_waiting == len(before.waiting)
        else:
            self._check_place(place[0], got)
            assert (got.tid, got.client_id, got.status) == (*place, TicketStatus.PENDING)
            self._known[got.tid] = Known(got.tid, user_id, [got.client_id])
        if again:
            seen, elsewhere = self._look(), self._room.place()
            repeated = self._ask(self._room.tickets.issue(elsewhere, *call))
            assert isinstance(repeated, RoomFull) if isinstance(got, RoomFull) else repeated == got
            assert self._look().tickets == seen.tickets

    def _check_handed_over(self, was: dict[str, str], client: str, asker: Asker, got: Place) -> None:
        now, owner = self._look().tickets[got.tid], Address.parse(was["owner"])
        assert got.status.value == was["status"] == now["status"]
        if asker.sent_ms < int(was["ownedAt"]):
            assert now == was
            assert got.kicked == (None if owner == asker.address else asker.address)
        else:
            assert (now["clientId"], now["owner"]) == (client, str(asker.address))
            assert now["streaming"] == "0"
            assert got.kicked == (None if owner == asker.address else owner)
            self._known[got.tid].clients.append(client)

    @precondition(lambda self: self._known)
    @rule(pick=picks, connection=connections, behind=behinds, right=st.booleans())
    def stream(self, pick: int, connection: Address, behind: int, right: bool) -> None:
        before, asker, known = self._was, self._asker(connection, behind), self._pick(pick)
        tid, client = known.tid, self._client(known, right)
        got = self._ask(self._room.tickets.stream(tid, client, asker))
        if not self._usable(tid):
            assert isinstance(got, TicketNotFound)
            return
        was = before.tickets[tid]
        if was["clientId"] != client or asker.sent_ms < int(was["ownedAt"]):
            assert isinstance(got, TakenOver)
            return
        owner = Address.parse(was["owner"])
        self._check_place(tid, got)
        assert got.status.value == was["status"]
        # Who asks again is told the same: the worker that was to kick the other out may have died.
        kicked = was.get("displaced", "") if owner == connection else was["owner"]
        assert got.kicked == (Address.parse(kicked) if kicked else None)
        left_ms = max(0, before.ready[tid] - before.now_ms) if tid in before.ready else 0
        assert 0 <= left_ms - round(got.deadline_s * 1000) <= STALL_MS
        now = self._look()
        told = {name: value for name, value in now.tickets[tid].items() if name in {"estimatedAt", "due"}}
        assert now.tickets[tid] == was | told | {
            "owner": str(connection), "ownedAt": str(asker.sent_ms), "streaming": "1", "displaced": kicked,
            "position": str(got.position), "higher": now.tickets[tid]["higher"],
            "best": now.tickets[tid]["best"],
            "lastSeen": now.tickets[tid]["lastSeen"], "toldAt": now.tickets[tid]["lastSeen"],
        }  # fmt: skip
        assert now.now_ms - int(now.tickets[tid]["lastSeen"]) <= STALL_MS

    @precondition(lambda self: self._known)
    @rule(pick=picks, right=st.booleans(), again=st.booleans())
    def cancel(self, pick: int, right: bool, again: bool) -> None:
        known = self._pick(pick)
        call = (known.tid, self._client(known, right), known.user_id, self._room.record())
        got = self._ask(self._room.tickets.cancel(*call))
        if not self._usable(known.tid):
            assert isinstance(got, TicketNotFound)
        elif self._was.tickets[known.tid]["clientId"] != call[1]:
            assert isinstance(got, TakenOver)
        else:
            assert got is None
            assert self._look().status(known.tid) == "CANCELLED"
            if again:
                assert self._ask(self._room.tickets.cancel(*call)) is None

    @precondition(lambda self: self._known)
    @rule(pick=picks, right=st.booleans(), racers=st.sampled_from([1, 1, 2, 5]), connection=connections)
    def finalize(self, pick: int, right: bool, racers: int, connection: Address) -> None:
        known = self._pick(pick)
        self._finalize(known, self._client(known, right), racers, connection)

    @rule(
        picked=st.lists(picks, min_size=1, max_size=4), racers=st.sampled_from([1, 5]), connection=connections
    )
    def finalize_who_is_ready(self, picked: list[int], racers: int, connection: Address) -> None:
        # No precondition: who is READY can depend on the outcome of a race, and rules must not.
        for pick in picked:
            if ready := list(self._was.ready):
                known = self._known[ready[pick % len(ready)]]
                self._finalize(known, known.clients[-1], racers, connection)
                self.everything_promised_holds()

    def _finalize(self, known: Known, client: str, racers: int, connection: Address) -> None:
        before, tid, user_id = self._was, known.tid, known.user_id
        ticket = Place(tid, client, TicketStatus.READY, 0, 0)
        askers = [self._asker(connection, 0) for _ in range(racers)]
        results = self._race([self._room.finalize(ticket, user_id, asker) for asker in askers])
        won = [result for result in results if isinstance(result, SignedIn)]
        refusals = {type(result) for result in results if isinstance(result, Exception)}
        if not self._usable(tid):
            assert (won, refusals) == ([], {TicketNotFound})
        elif before.tickets[tid]["clientId"] != client:
            assert (won, refusals) == ([], {NotYours})
        elif before.status(tid) == "PENDING":
            assert (won, refusals) == ([], {NotReady})
        elif before.ready[tid] < before.now_ms:
            assert (won, refusals) == ([], {TicketNotFound})
        else:
            assert len(won) == 1
            assert refusals <= {TicketNotFound}
            assert won[0].kicked == self._take_session(user_id, connection)

    def _take_session(self, user_id: str, connection: Address) -> Address | None:
        """Answers who is to be kicked out; the same again to the connection that has the session already."""
        previous, displaced = self._sessions.get(user_id, (None, None))
        if previous != connection:
            displaced = previous
        self._sessions[user_id] = (connection, displaced)
        return displaced

    def _run(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self._runner.run(run())

    def _race(self, work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        async def race() -> list[Any]:
            return await asyncio.gather(*work, return_exceptions=True)

        return self._run(race())

    def _ask(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The answer, or the exception in its place."""
        return self._race([work])[0]

    def _look(self) -> Seen:
        return self._run(self._room.look())

    async def _open(self, url: str) -> Room:
        room = Room(url)
        await room.redis.flushall()
        return room

    def _asker(self, connection: Address, behind: int) -> Asker:
        return self._room.asker(connection.connection_id, connection.server_id, behind)

    def _pick(self, pick: int) -> Known:
        """One of those alive, if there are any; with a pick of 0 to 2, one of all, the newest first."""
        alive = [*self._was.waiting, *self._was.away, *self._was.ready]
        tids = alive if alive and pick > 2 else list(self._known)
        return self._known[tids[-1 - pick % len(tids)]]

    @staticmethod
    def _client(known: Known, right: bool) -> str:
        """The client id that is good, or one that was, if there was."""
        return ["client_of_nobody", *known.clients][-1 if right else -2]

    def _owner(self, tid: str) -> Address:
        fields = self._was.tickets.get(tid)
        return Address.parse(fields["owner"]) if fields else Address("SOCK001", 1)

    def _usable(self, tid: str) -> bool:
        user_id = self._known[tid].user_id
        return self._was.status(tid) in LIVE and self._was.holders.get(user_id) == tid

    def _check_place(self, tid: str, got: Place) -> None:
        """The place that an answer tells: in one tier alone the rank, or the better one that was told."""
        now = self._look()
        assert got.total_waiting == len(now.waiting)
        if tid not in now.waiting:
            assert got.position == 0
            return
        rank, told = now.waiting.index(tid) + 1, int(self._was.tickets.get(tid, {}).get("position", 0))
        if len({now.tickets[each]["tier"] for each in now.waiting}) == 1:
            assert got.position == rank or got.position == told < rank
        assert 1 <= got.position <= len(now.waiting) or got.position == told
