"""Whatever players, workers and time do to the waiting room, it keeps what it promises (see promises.py)."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage import keys
from storage.sessions import NotReady, NotYours, SignedIn
from storage.tickets import Admission, Admitted, Ended, Place, TakenOver, TicketNotFound, Update
from tests.storage.order import Known
from tests.storage.players import STALL_MS, USERS, Players, connections, picks, rates
from tests.storage.promises import most_in_window
from tests.storage.room import DEADLINE_S, MANY, TTL_S, Seen


class TicketMachine(Players):
    """Beside the players: workers admit and survey, nodes keep places, time passes, much happens at once."""

    @rule(after_s=st.lists(st.sampled_from([0.25, 1.5, 4.25, 5.5, 11]), min_size=1, max_size=5))
    def admit_now_and_then(self, after_s: list[float]) -> None:
        for seconds in after_s:
            self._pass(seconds)
            self._admit(1, MANY, DEADLINE_S)
            self.everything_promised_holds()

    @rule(
        callers=st.sampled_from([1, 1, 3]),
        most=st.sampled_from([1, 2, MANY, MANY]),
        deadline_s=st.sampled_from([DEADLINE_S, 0.001]),
    )
    def admit(self, callers: int, most: int, deadline_s: float) -> None:
        self._admit(callers, most, deadline_s)

    def _admit(self, callers: int, most: int, deadline_s: float) -> None:
        before = self._was
        outcomes: list[Admission] = self._race([self._room.admit(most, deadline_s) for _ in range(callers)])
        after = self._look()
        admitted = [each for outcome in outcomes for each in outcome.admitted]
        expired = [each for outcome in outcomes for each in outcome.expired]
        assert sorted(each.tid for each in admitted) == sorted(
            tid for tid in before.waiting if "readyAt" in after.tickets[tid]
        )
        assert sorted((each.tid, each.reason) for each in expired) == sorted(
            (tid, "FINALIZE_DEADLINE" if "readyAt" in after.tickets[tid] else "ABANDONED")
            for tid in (*before.ready, *before.waiting, *before.away)
            if after.status(tid) == "EXPIRED"
        )
        late = {tid for tid, deadline_ms in before.ready.items() if deadline_ms <= after.now_ms}
        assert all(not before.is_away(each.tid) for each in admitted)
        assert all(
            before.is_away(tid) and (tid in before.waiting or tid in late)
            for tid in after.away.keys() - before.away.keys()
        )
        for tid, owner in [(each.tid, each.owner) for outcome in outcomes for each in _told(outcome)]:
            was = before.tickets[tid]
            assert owner == (Address.parse(was["owner"]) if was["streaming"] == "1" else None)
            assert (tid in after.untold) == (owner is not None and after.status(tid) == "READY")
        if callers == 1:
            self._check_progress(before, after, outcomes[0], most)

    def _check_progress(self, before: Seen, after: Seen, outcome: Admission, most: int) -> None:
        """Nobody waits for longer than the rate asks for, and what no-shows leave is given on at once."""
        late = [tid for tid, deadline_ms in before.ready.items() if deadline_ms <= before.now_ms]
        no_shows = sum(each.reason == "FINALIZE_DEADLINE" for each in outcome.expired)
        passed = sum(tid in before.ready for tid in after.away)
        assert min(most, len(late)) <= no_shows + passed <= most
        assert outcome.waiting == len(after.waiting)
        assert (outcome.pause_s is None) == (outcome.waiting == 0 or self._rate == 0)
        if self._rate == 0:
            assert outcome.admitted == []
            return
        now_ms = int(after.bucket["at"])
        passed_ms = now_ms - int(before.bucket.get("at", 0))
        in_window = self._promises.in_window(now_ms)
        fresh = passed_ms * self._rate >= 60_000 and in_window < most_in_window(self._rate)
        permitted = min(int(before.bucket.get("refunds", 0)) + no_shows + passed + fresh, most)
        offered = len(set(before.waiting) - set(after.waiting))
        assert len(outcome.admitted) <= offered <= most
        if len(outcome.admitted) < permitted:
            assert offered == min(most, len(before.waiting))

    @rule(first=st.integers(0, 3) | st.none(), count=st.sampled_from([1, 2, MANY]), everyone=st.booleans())
    def survey(self, first: int | None, count: int, everyone: bool) -> None:
        self._survey(first, count, everyone=everyone)

    def _survey(self, first: int | None, count: int, *, everyone: bool) -> None:
        before, after_s = self._was, (0.0, 0.0) if everyone else (1.9, 7.0)
        if first is None:
            start, first = None, self._run(self._room.first_to_walk())
        else:
            start = first
        found = self._run(self._room.tickets.survey(start, count, *after_s))
        walked = before.waiting[first : first + count]
        gone = [tid for tid in walked if before.abandoned(tid)]
        left = [tid for tid in before.waiting if tid not in gone]
        assert [(each.tid, each.reason) for each in found.expired] == [(tid, "ABANDONED") for tid in gone]
        assert found.total_waiting == len(left)
        streaming = [tid for tid in walked if tid in left and before.tickets[tid]["streaming"] == "1"]
        after = self._look()
        told = [(tid, self._owner(tid), int(after.tickets[tid]["position"])) for tid in streaming]
        if everyone:
            assert [(each.owner, each.position) for each in found.updates] == [each[1:] for each in told]
        for update in found.updates:
            tids = [tid for tid, *rest in told if rest == [update.owner, update.position]]
            assert any(self._is_news(tid, update, everyone=everyone) for tid in tids)

    def _is_news(self, tid: str, update: Update, *, everyone: bool) -> bool:
        """Whether it is time to tell this, with the reason that it has."""
        was = self._was.tickets[tid]
        since_ms, told = self._run(self._room.now_ms()) - int(was["toldAt"]), int(was["position"])
        is_time = everyone or since_ms >= (1900 if told != update.position else 7000)
        is_worse = 0 < int(was["best"]) < update.position
        return is_time and update.reason == ("HIGHER_TIER" if is_worse else None)

    @precondition(lambda self: self._known)
    @rule(chosen=st.sets(picks, max_size=4), right=st.booleans())
    def leave(self, chosen: set[int], right: bool) -> None:
        """Connections are gone."""
        tids = {self._pick(pick).tid for pick in chosen}
        pairs = [(tid, self._owner(tid) if right else Address("SOCK009", 9)) for tid in tids]
        expected = {tid for tid in tids if right and self._usable(tid) and not self._has_left(tid)}
        assert self._run(self._room.tickets.leave(pairs)) == len(expected)
        now = self._look()
        for tid in tids:
            if tid in expected:
                seen = now.tickets[tid]["lastSeen"]
                assert now.tickets[tid] == self._was.tickets[tid] | {"streaming": "left", "lastSeen": seen}
                assert now.now_ms - int(seen) <= STALL_MS
            else:
                assert now.tickets.get(tid) == self._was.tickets.get(tid)
        assert now.waiting == self._was.waiting

    @rule(server_id=st.sampled_from(["SOCK001", "SOCK002"]), lives=st.booleans())
    def turn_node(self, server_id: str, lives: bool) -> None:
        """A node is gone, with all its connections, or has only stood still."""
        self._run(self._room.nodes.lives(server_id, 0 if lives else 1_000_000))

    @precondition(lambda self: self._known)
    @rule(chosen=st.sets(picks, max_size=4), right=st.booleans())
    def touch(self, chosen: set[int], right: bool) -> None:
        tids = {self._pick(pick).tid for pick in chosen}
        pairs = [(tid, self._owner(tid) if right else Address("SOCK009", 9)) for tid in tids]
        expected = {tid for tid in tids if right and self._usable(tid) and not self._has_left(tid)}
        assert self._run(self._room.tickets.touch(pairs)) == len(expected)
        now = self._look()
        assert now.away.keys() == self._was.away.keys() - expected
        for tid in expected:
            assert now.now_ms - int(now.tickets[tid]["lastSeen"]) <= STALL_MS
            assert now.left_ms[keys.user_ticket(self._known[tid].user_id)] >= 900_000 - STALL_MS
        for tid in tids - expected:
            assert now.tickets.get(tid) == self._was.tickets.get(tid)

    @precondition(lambda self: self._known)
    @rule(
        chosen=st.sets(picks, max_size=4),
        since_s=st.sampled_from([0.0, 1.0]),
        most=st.sampled_from([1, MANY]),
    )
    def tell_again(self, chosen: set[int], since_s: float, most: int) -> None:
        """Some players are told that they are READY; who is not is found."""
        tids = {self._pick(pick).tid for pick in chosen}
        self._run(self._room.tickets.told(list(tids)))
        before = self._look()
        assert before.untold.keys() == self._was.untold.keys() - tids
        found = self._run(self._room.tickets.untold(since_s, most))
        streaming = [tid for tid in before.untold if before.tickets[tid]["streaming"] == "1"]
        if since_s == 0 and most == MANY:
            assert [each.tid for each in found] == streaming
        assert len(found) <= most
        for each in found:
            assert each.tid in streaming
            assert each.owner == self._owner(each.tid)
            assert (
                0
                <= max(0, before.ready[each.tid] - before.now_ms) - round(each.deadline_s * 1000)
                <= STALL_MS
            )

    @rule(rate=rates | st.just(0), lost=st.booleans())
    def set_rate(self, rate: int, lost: bool) -> None:
        self._run(self._room.settings.configure(rate, 1))
        self._rate = rate
        if lost:
            self._run(self._room.redis.function_flush())

    @rule(seconds=st.sampled_from([2.25, 4.25, 11, 61]))
    def pass_time(self, seconds: float) -> None:
        self._pass(seconds)

    @precondition(lambda self: self._known)
    @rule(chosen=st.sets(picks, max_size=3), then=st.sampled_from(["survey", "admit", "nothing"]))
    def abandon_most(self, chosen: set[int], then: str) -> None:
        """Nobody but some is seen for longer than a place is kept."""
        kept = {self._pick(pick).tid for pick in chosen}
        for _ in range(3):
            self._run(self._room.tickets.touch([(tid, self._owner(tid)) for tid in kept]))
            self._pass(TTL_S / 3 + 1)
        if then == "survey":
            self._survey(0, MANY, everyone=True)
        elif then == "admit":
            self._admit(1, MANY, DEADLINE_S)

    def _pass(self, seconds: float) -> None:
        self._run(self._room.pass_time(seconds))
        self._promises.age(int(seconds * 1000))
        self._was = self._look()  # its times can be compared with those to come

    @precondition(lambda self: self._known)
    @rule(
        pick=picks,
        connection=connections,
        deeds=st.lists(
            st.sampled_from(["log in", "stream", "leave", "cancel", "finalize", "admit", "survey", "touch"]),
            min_size=2,
            max_size=8,
        ),
    )
    def do_much_at_once(self, pick: int, connection: Address, deeds: list[str]) -> None:
        """Several requests for one ticket race with each other and with the workers."""
        known, room = self._pick(pick), self._room
        tid, user_id, client = known.tid, known.user_id, known.clients[-1]
        ticket = Place(tid, client, TicketStatus.READY, 0, 0)
        do: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "log in": lambda: room.login(
                user_id,
                self._asker(connection, 0),
                most_waiting=len(self._was.waiting) + MANY,
                tier=USERS[user_id],
            ),
            "stream": lambda: room.tickets.stream(tid, client, self._asker(connection, 0)),
            "leave": lambda: room.tickets.leave([(tid, self._owner(tid))]),
            "cancel": lambda: room.tickets.cancel(tid, client, user_id, room.record()),
            "finalize": lambda: room.finalize(ticket, user_id, self._asker(connection, 0)),
            "admit": room.admit,
            "survey": lambda: room.tickets.survey(0, MANY, 0.0, 0.0),
            "touch": lambda: room.tickets.touch([(tid, connection)]),
        }
        outcomes = list(zip(deeds, self._race([do[name]() for name in deeds]), strict=True))
        for name, outcome in outcomes:
            if isinstance(outcome, Exception):
                assert isinstance(outcome, (TicketNotFound, TakenOver, NotReady, NotYours))
            elif name == "log in":
                self._learn(user_id, outcome)
            elif name == "finalize":
                assert outcome.kicked == self._take_session(user_id, connection)
        spent = [name for name, outcome in outcomes if name == "cancel" and outcome is None]
        spent += [name for name, outcome in outcomes if isinstance(outcome, SignedIn)]
        assert len(spent) <= 1

    def _has_left(self, tid: str) -> bool:
        return self._was.tickets[tid]["streaming"] == "left"

    def _learn(self, user_id: str, place: Place) -> None:
        """Which of several client ids that were given out at once is good is seen afterwards."""
        known = self._known.setdefault(place.tid, Known(place.tid, user_id))
        if place.client_id not in known.clients:
            known.clients.append(place.client_id)
        good = self._look().tickets[place.tid]["clientId"]
        known.clients.sort(key=lambda client: client == good)


def _told(outcome: Admission) -> list[Admitted | Ended]:
    return [*outcome.admitted, *outcome.expired]


def test_the_waiting_room_keeps_its_promises(redis_url: str) -> None:
    machine = cast("type[RuleBasedStateMachine]", lambda: TicketMachine(redis_url))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
