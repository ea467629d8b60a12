"""Whatever players, workers and time do, nobody is booked twice, lost or kept waiting too long."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from storage import keys
from storage.matches import AlreadyMatched, Entry, NotInQueue, Proposal, Verdict
from tests.storage.lobby import WAIT_MS, Lobby, wants
from tests.workers.matching.players import Game, Stay, Worker
from workers.matching.crowd import Found

pytestmark = pytest.mark.servers

USERS = [f"user-{number}" for number in range(8)]
WORKERS = 3
DEEDS = ["go", "cancel", "come again", "end a wait", "finish", "finish and come again"]
STALL_MS = 15_000  # a machine that stands still for so long makes no test fail

LONG_S = 3600.0

users = st.sampled_from(USERS)
workers = st.integers(0, WORKERS - 1)
picks = st.integers(0, 2)  # which of those that there are, which depends on races: nothing drawn may
wishes = st.fixed_dictionaries(
    {
        "level": st.sampled_from([5, 5, 5, 6]),
        "region": st.sampled_from(["asia", "asia", "", "europe"]),
        "size": st.sampled_from([2, 2, 2, 3]),
        "wait_ms": st.sampled_from([WAIT_MS, WAIT_MS, 20_000]),
    }
)


class MatchMachine(RuleBasedStateMachine):
    """Players and workers, and what must be so after each of their deeds."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._lobby = self._run(self._open(url))
        self._workers = [Worker(self._lobby) for _ in range(WORKERS)]
        self._stays: dict[str, Stay] = {}
        self._games: dict[str, Game] = {}
        self._here: set[str] = set(USERS)
        self._numbers = iter(range(1, 1_000_000))

    async def _open(self, url: str) -> Lobby:
        lobby = Lobby(url)
        await lobby.redis.flushall()
        await lobby.connect(*USERS)
        return lobby

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(doing)

    def teardown(self) -> None:
        self._run(self._lobby.redis.aclose())
        self._runner.close()

    # What players do.

    @rule(chosen=st.lists(st.tuples(users, workers, wishes), min_size=1, max_size=5))
    def enter(self, chosen: list[tuple[str, int, dict[str, Any]]]) -> None:
        """Players ask for opponents, at several workers at once."""

        async def one(user_id: str, worker: Worker, wish: dict[str, Any]) -> Any:
            asked = [(wants(user_id, **wish), self._lobby.record())]
            news, (entered,) = await worker.matches.enter(worker.cursor, asked)
            return worker, news, entered

        async def all_at_once() -> Any:
            answers = await asyncio.gather(
                *(one(user_id, self._workers[number], wish) for user_id, number, wish in chosen)
            )
            for worker in {answer[0] for answer in answers}:
                await worker.catch_up()
            return [answer[2] for answer in answers]

        before = dict(self._stays)
        for (user_id, _, wish), entered in zip(chosen, self._run(all_at_once()), strict=True):
            if user_id in before:
                wanted = Entry.ALREADY_MATCHED if before[user_id].session_id else Entry.ALREADY_MATCHING
                assert entered.what is wanted
            elif entered.what is Entry.ENTERED:
                assert user_id not in self._stays
                since_ms = self._hash(user_id)["created_at"]
                self._stays[user_id] = Stay(
                    entered.entry, int(since_ms), int(since_ms) + wish.get("wait_ms", WAIT_MS)
                )
            else:
                assert entered.what is Entry.ALREADY_MATCHING  # the same player, twice at once
        assert {user_id for user_id, *_ in chosen} <= self._stays.keys()

    @rule()
    def a_crowd_comes(self) -> None:
        """Enough of a kind that there is something to be matched, known to all workers."""
        alike = {"level": 5, "region": "asia", "size": 2, "wait_ms": WAIT_MS}
        self.enter([(user_id, 0, alike) for user_id in USERS])
        for worker in self._workers:
            self._run(worker.catch_up())

    @rule(user_id=users)
    def cancel(self, user_id: str) -> None:
        self._cancelled(user_id, self._run(self._try_cancel(user_id)))

    async def _try_cancel(self, user_id: str) -> Exception | None:
        try:
            await self._lobby.matches.cancel(user_id, self._lobby.record())
        except (NotInQueue, AlreadyMatched) as error:
            return error
        return None

    def _cancelled(self, user_id: str, outcome: Exception | None) -> None:
        stay = self._stays.get(user_id)
        if stay is None:
            assert isinstance(outcome, NotInQueue)
        elif stay.session_id is not None:
            assert isinstance(outcome, AlreadyMatched)
            assert outcome.meeting.session_id == stay.session_id
        else:
            assert outcome is None
            del self._stays[user_id]

    @rule(user_id=users)
    def go(self, user_id: str) -> None:
        self._do("go", user_id)

    @rule()
    def all_come_back(self) -> None:
        self._here = set(USERS)
        self._run(self._lobby.connect(*USERS))

    # What workers do.

    @rule(
        chosen=st.sets(workers, min_size=1),
        deeds=st.lists(st.tuples(st.sampled_from(DEEDS), users), max_size=3),
        cancelling=st.sets(users, max_size=2),
        catching_up=st.booleans(),
    )
    def match(
        self, chosen: set[int], deeds: list[tuple[str, str]], cancelling: set[str], catching_up: bool
    ) -> None:
        """Workers match all whom they know to fit, at once: behind their backs and meanwhile much happens."""
        self._match(chosen, deeds, cancelling, catching_up=catching_up)

    def _match(
        self, chosen: set[int], deeds: list[tuple[str, str]], cancelling: set[str], *, catching_up: bool
    ) -> int:
        """Answers how many matches were proposed."""
        proposed: list[tuple[Worker, list[Found], list[Proposal]]] = []
        now_ms = self._now_ms()
        for number in sorted(chosen):
            worker = self._workers[number]
            if catching_up:
                self._run(worker.catch_up())
            found = list(worker.crowd.sweep(now_ms))
            proposed.append((worker, found, list(map(self._proposal, found))))

        for deed, user_id in deeds:
            self._do(deed, user_id)

        async def all_at_once() -> Any:
            return await asyncio.gather(
                *(worker.matches.claim(proposals) for worker, _, proposals in proposed),
                *map(self._try_cancel, sorted(cancelling)),
            )

        answers = self._run(all_at_once())
        for (worker, found, proposals), verdicts in zip(proposed, answers, strict=False):
            for each, proposal, verdict in zip(found, proposals, verdicts, strict=True):
                worker.crowd.settle(each, verdict)
                self._claimed(proposal, verdict)
        for user_id, outcome in zip(sorted(cancelling), answers[len(proposed) :], strict=True):
            self._cancelled(user_id, outcome)
        return sum(len(proposals) for *_, proposals in proposed)

    def _do(self, deed: str, user_id: str) -> None:
        if deed == "go":
            self._here.discard(user_id)
            self._run(self._lobby.disconnect(user_id))
            return
        if deed == "end a wait":
            for each in self._run(self._lobby.matches.expire(LONG_S, 1)):
                assert self._stays.pop(each.user_id).session_id is None
            return
        if deed.startswith("finish"):
            stay = self._stays.get(user_id)
            if stay is not None and stay.session_id is not None:
                self._finish(stay.session_id, 1)
        else:
            self.cancel(user_id)
        if deed.endswith("come again") and user_id not in self._stays:
            self.enter([(user_id, 2, {})])

    def _proposal(self, found: Found) -> Proposal:
        match = found.match
        players = tuple((player.user_id, player.entry) for player in match.players)
        name = f"game-{next(self._numbers)}"
        return Proposal(name, found.difficulty, match.level, match.region, match.cost, players)

    def _claimed(self, proposal: Proposal, verdict: Verdict) -> None:
        if not verdict.is_made:
            return
        names = tuple(user_id for user_id, _ in proposal.players)
        for user_id, entry in proposal.players:
            stay = self._stays[user_id]
            assert (stay.entry, stay.session_id) == (entry, None), "booked twice, or not waiting"
            assert user_id in self._here, "matched while away"
            stay.session_id = proposal.session_id
        self._games[proposal.session_id] = Game(names)

    @rule(pick=picks)
    def tell(self, pick: int) -> None:
        untold = [name for name, game in self._games.items() if not game.told]
        for name in untold[pick : pick + 1]:
            self._games[name].told = True
            self._run(self._lobby.matches.told([name]))

    @rule()
    def look_after_the_untold(self) -> None:
        """Whose maker died is told again, or undone where one has vanished."""
        again = {name for name, _ in self._run(self._lobby.matches.untold(0.0, 100))}
        for name, game in list(self._games.items()):
            if game.told:
                assert name not in again
            elif self._here.issuperset(game.players):
                assert name in again
            else:
                assert name not in again
                del self._games[name]
                for user_id in game.players:
                    self._stays[user_id].session_id = None

    @rule(pick=picks, times=st.sampled_from([1, 2]))
    def finish(self, pick: int, times: int) -> None:
        for name in list(self._games)[pick : pick + 1]:
            self._finish(name, times)

    def _finish(self, name: str, times: int) -> None:
        game = self._games.pop(name)

        async def at_once() -> Any:
            finish = self._lobby.matches.finish
            return await asyncio.gather(*(finish(name, game.players) for _ in range(times)))

        assert sum(self._run(at_once())) == len(game.players)
        for user_id in game.players:
            del self._stays[user_id]

    @rule(number=workers)
    def kill(self, number: int) -> None:
        """A worker dies with all that it knows; another begins."""
        self._workers[number] = Worker(self._lobby)

    @rule()
    def end_waits(self) -> None:
        before_ms = self._now_ms()
        ended = self._run(self._lobby.matches.expire(0.0, 100))
        after_ms = self._now_ms()
        gone = {each.user_id for each in ended}
        waiting = {user_id: stay for user_id, stay in self._stays.items() if stay.session_id is None}
        assert gone <= waiting.keys()
        assert {each for each, stay in waiting.items() if stay.deadline_ms <= before_ms} <= gone
        assert all(waiting[each].deadline_ms <= after_ms for each in gone)
        for each in ended:
            assert abs(each.waited_ms - (after_ms - waiting[each.user_id].since_ms)) <= STALL_MS
            assert (each.address is not None) == (each.user_id in self._here)
            del self._stays[each.user_id]

    @rule(seconds=st.sampled_from([1, 3, 12, 25, 61]))
    def pass_time(self, seconds: int) -> None:
        self._run(self._lobby.pass_time(seconds))
        for stay in self._stays.values():
            stay.since_ms -= seconds * 1000
            stay.deadline_ms -= seconds * 1000
        # What workers remember is as old as what Redis has.
        for number in range(WORKERS):
            self._workers[number] = Worker(self._lobby)

    @rule()
    def match_to_the_last(self) -> None:
        """Whoever can be matched is, by one worker alone and whatever it did not know before."""
        worker = self._workers[0]
        self._run(worker.catch_up())
        while self._match({0}, [], set(), catching_up=False):
            pass
        self._run(worker.catch_up())
        assert list(worker.crowd.sweep(self._now_ms())) == []
        worker.cursor = ""

    # What must be so.

    @invariant()
    def everybody_is_where_they_ought_to_be(self) -> None:
        queues = self._run(self._lobby.queues())
        queued = [user_id for members in queues.values() for user_id in members]
        assert len(queued) == len(set(queued)), "in two queues"
        waiting = {user_id for user_id, stay in self._stays.items() if stay.session_id is None}
        assert set(queued) == waiting
        deadlines = self._run(self._lobby.redis.zrange(keys.GAME_DEADLINES, 0, -1, withscores=True))
        assert {user.decode(): int(at) for user, at in deadlines} == {
            user_id: self._stays[user_id].deadline_ms for user_id in waiting
        }
        for user_id in USERS:
            self._is_right(user_id, queues)

    def _is_right(self, user_id: str, queues: dict[str, list[str]]) -> None:
        found, stay = self._hash(user_id), self._stays.get(user_id)
        if stay is None:
            assert found == {}
            return
        assert (int(found["entry"]), int(found["created_at"])) == (stay.entry, stay.since_ms), "age lost"
        if stay.session_id is None:
            assert found["status"] == "waiting"
            assert "game_session_id" not in found
            assert user_id in queues[keys.game_waiting(found["difficulty"], int(found["level"]))]
            return
        others = [each for each in self._games[stay.session_id].players if each != user_id]
        assert (found["status"], found["game_session_id"]) == ("matched", stay.session_id)
        assert found["matched_users"].split(",") == others

    @invariant()
    def workers_who_listen_know_who_waits(self) -> None:
        worker = self._workers[1]
        self._run(worker.catch_up())
        waiting = {stay.entry for stay in self._stays.values() if stay.session_id is None}
        assert worker.crowd.entries == waiting

    def _hash(self, user_id: str) -> dict[str, str]:
        fields = self._run(self._lobby.redis.hgetall(keys.game_match(user_id)))
        return {name.decode(): value.decode() for name, value in fields.items()}

    def _now_ms(self) -> int:
        seconds, micros = self._run(self._lobby.redis.time())
        return int(seconds) * 1000 + int(micros) // 1000


def test_matching_keeps_its_promises(redis_url: str) -> None:
    machine = cast("type[RuleBasedStateMachine]", lambda: MatchMachine(redis_url))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
