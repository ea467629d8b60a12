"""Matchmakers at work on one Redis: nobody is lost between them, whatever comes and goes."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from protocol.envelope import Address
from storage import keys
from storage.connections import connect_wire
from storage.errors import StoreAway
from storage.matches import Entered, Entry, MatchBoard, Matches, Session
from storage.queues import Outbox
from tests.servers import RedisServer
from tests.storage.lobby import NODE, SESSION_TTL_S, Lobby, open_lobby, wants
from workers.matching.crowd import Crowd, widening
from workers.matching.matchmaker import MOST_ARRIVALS, Matchmaker
from workers.matching.messenger import Messenger

pytestmark = pytest.mark.servers

PATIENCE_S = 60.0
ORIGIN = Address(NODE, 0)


class Staff:
    """Matchmakers, each as a worker has it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._tasks: list[list[asyncio.Task[None]]] = []
        self.matchmakers: list[Matchmaker] = []
        self.told: list[Session] = []

    def hire(self) -> Matchmaker:
        """One more."""
        wire = connect_wire(self._url)
        outbox, matches = Outbox(wire), Matches(wire, SESSION_TTL_S)
        crowd = Crowd({"easy": widening("0:0 1:9+")})
        messenger = Messenger(outbox, matches, self.told.append)
        matchmaker = Matchmaker(matches, MatchBoard(wire), crowd, messenger, f"worker-{len(self._tasks)}")
        self._tasks.append([asyncio.create_task(outbox.run()), asyncio.create_task(matchmaker.run())])
        self.matchmakers.append(matchmaker)
        return matchmaker

    def kill(self, number: int) -> None:
        """One ends as by a crash."""
        for task in self._tasks[number]:
            task.cancel()

    def end(self) -> None:
        """All end."""
        for number in range(len(self._tasks)):
            self.kill(number)


@pytest.fixture
def staff(valkey_url: str) -> Iterator[Staff]:
    staff = Staff(valkey_url)
    yield staff
    staff.end()


@pytest.fixture
async def lobby(valkey_url: str) -> AsyncIterator[Lobby]:
    async with open_lobby(valkey_url) as lobby:
        await lobby.redis.hset(keys.queue_meta(keys.node_queue(NODE)), "maxSize", 1_000_000)
        yield lobby


async def ask(lobby: Lobby, matchmaker: Matchmaker, user_id: str, **wish: object) -> Entered:
    return await matchmaker.enter(wants(user_id, **wish), lobby.record(), ORIGIN)


async def answered(lobby: Lobby, matchmaker: Matchmaker, user_id: str) -> Entered:
    """Ask until Redis is there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(StoreAway):
                return await ask(lobby, matchmaker, user_id)


async def until_nobody_waits(lobby: Lobby) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await lobby.redis.zcard(keys.GAME_DEADLINES):
            await asyncio.sleep(0.05)


async def partners(lobby: Lobby, user_ids: list[str]) -> dict[str, str]:
    """Whom each plays with; those who play with nobody are left out."""
    found = {}
    for user_id in user_ids:
        standing = await lobby.board.standing(user_id)
        if standing is not None and standing.meeting is not None:
            (found[user_id],) = standing.meeting.others
    return found


async def test_the_later_of_two_finds_the_earlier_at_whichever_worker(staff: Staff, lobby: Lobby) -> None:
    one, other = staff.hire(), staff.hire()
    await lobby.connect("bora", "chul", "dana", "eun")
    for first, second, pair in ((one, other, ("bora", "chul")), (other, one, ("dana", "eun"))):
        assert (await ask(lobby, first, pair[0])).what is Entry.ENTERED
        met = await ask(lobby, second, pair[1])
        assert met.what is Entry.MATCHED
        assert met.meeting is not None
        assert met.meeting.others == (pair[0],)


async def test_a_crowd_is_matched_to_the_last_while_players_and_workers_come_and_go(
    staff: Staff, lobby: Lobby
) -> None:
    chance = random.Random(5)
    for _ in range(3):
        staff.hire()
    names = [f"player-{number:03}" for number in range(240)]
    await lobby.connect(*names)

    async def play(number: int, name: str) -> None:
        await asyncio.sleep(chance.random())
        wish = {"level": chance.randint(1, 10), "region": chance.choice(["asia", "europe", ""])}
        await ask(lobby, staff.matchmakers[1 + number % 2], name, **wish)
        if number % 6 == 0:
            with contextlib.suppress(Exception):
                await lobby.matches.cancel(name, lobby.record())
        if number % 40 == 1:
            await lobby.disconnect(name)
            await asyncio.sleep(0.3)
            await lobby.connect(name)

    plays = asyncio.gather(*(play(number, name) for number, name in enumerate(names)))
    await asyncio.sleep(0.5)
    staff.kill(0)
    await plays
    if len(await lobby.redis.zrange(keys.GAME_DEADLINES, 0, -1)) % 2:
        await lobby.connect("one-more")
        await ask(lobby, staff.matchmakers[1], "one-more")
    await until_nobody_waits(lobby)
    found = await partners(lobby, [*names, "one-more"])
    assert len(found) >= len(names) * 5 // 6
    assert all(found[partner] == name for name, partner in found.items())


async def test_a_burst_that_takes_many_calls_is_matched_whole(staff: Staff, lobby: Lobby) -> None:
    names = [f"player-{number:04}" for number in range(4 * MOST_ARRIVALS)]
    await lobby.connect(*names)
    one, other = staff.hire(), staff.hire()
    asked = [ask(lobby, (one, other)[number % 2], name) for number, name in enumerate(names)]
    answers = await asyncio.gather(*asked)
    assert {each.what for each in answers} <= {Entry.ENTERED, Entry.MATCHED}
    await until_nobody_waits(lobby)
    found = await partners(lobby, names)
    assert len(found) == len(names)
    assert all(found[partner] == name for name, partner in found.items())


async def test_a_burst_during_which_redis_goes_away_is_answered_whole(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 5  # so that few players take many calls
    monkeypatch.setattr("workers.matching.matchmaker.MOST_ARRIVALS", most)
    staff = Staff(own_redis.url)
    matchmaker = staff.hire()
    names = [f"player-{number:02}" for number in range(4 * most)]
    try:
        async with open_lobby(own_redis.url) as lobby:
            await lobby.connect(*names)
            asked = [asyncio.create_task(ask(lobby, matchmaker, name)) for name in names]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            own_redis.stop()
            async with asyncio.timeout(PATIENCE_S):
                answers = await asyncio.gather(*asked, return_exceptions=True)
        assert any(isinstance(each, StoreAway) for each in answers)
        assert all(isinstance(each, (StoreAway, Entered)) for each in answers)
        own_redis.start()
        async with open_lobby(own_redis.url) as lobby:
            await lobby.connect(*names)
            await asyncio.gather(*(answered(lobby, matchmaker, name) for name in names))
            await until_nobody_waits(lobby)
            found = await partners(lobby, names)
        assert len(found) == len(names)
        assert all(found[partner] == name for name, partner in found.items())
    finally:
        staff.end()


async def test_what_a_dead_worker_did_not_tell_another_tells(staff: Staff, lobby: Lobby) -> None:
    await lobby.wait("bora", "chul", "dana", "eun")
    await lobby.match("game-1", "bora", "chul")
    await lobby.match("game-2", "dana", "eun")
    await lobby.disconnect("eun")
    staff.hire()
    async with asyncio.timeout(PATIENCE_S):
        while not staff.told:
            await asyncio.sleep(0.05)
    assert [session.session_id for session in staff.told] == ["game-1"]
    async with asyncio.timeout(PATIENCE_S):
        while not await lobby.redis.xlen(keys.node_queue(NODE)):
            await asyncio.sleep(0.05)
    assert await lobby.status("dana") == "waiting"
    await lobby.connect("eun")
    await until_nobody_waits(lobby)
    assert (await partners(lobby, ["dana"])) == {"dana": "eun"}


async def test_redis_away_is_said_and_forgotten(own_redis: RedisServer) -> None:
    staff = Staff(own_redis.url)
    matchmaker = staff.hire()
    try:
        async with open_lobby(own_redis.url) as lobby:
            await lobby.connect("bora", "chul")
            assert (await ask(lobby, matchmaker, "bora")).what is Entry.ENTERED
        own_redis.stop()
        async with open_lobby(own_redis.url) as lobby:
            with pytest.raises(StoreAway):
                await ask(lobby, matchmaker, "chul")
        own_redis.start()
        async with open_lobby(own_redis.url) as lobby:
            await lobby.connect("bora", "chul")
            first = await answered(lobby, matchmaker, "bora")
            second = await ask(lobby, matchmaker, "chul")
            # A Redis that kept what it had knows bora still.
            assert first.what in {Entry.ENTERED, Entry.ALREADY_MATCHING}
            assert second.what is Entry.MATCHED
    finally:
        staff.end()
