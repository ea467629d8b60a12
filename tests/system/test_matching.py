"""Players find opponents, wherever they are connected and whichever worker lets them wait."""

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from client import RequestFailed
from protocol.announcement import GameFinished
from protocol.messages.auth import Finalized
from protocol.messages.matching import (
    AskMatch,
    CancelMatch,
    Difficulty,
    FindMatch,
    Finished,
    FinishGame,
    MatchFound,
    MatchState,
    MatchStatus,
    MatchTimeout,
    Preferences,
    Score,
)
from storage import keys
from storage.events import read_announcement
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.guest import Guest
from tests.system.wire import Wire, leave

pytestmark = pytest.mark.servers

MATCHING, MATCHED = MatchStatus.MATCHING, MatchStatus.MATCHED


@pytest.fixture(scope="module")
def arena(servers_folder: Path) -> Iterator[Cluster]:
    """Two nodes and two matching workers; skill counts where it is hard."""
    for cluster in run_house(servers_folder / uuid.uuid4().hex, {"matching.by_skill": '["hard"]'}):
        cluster.start(nodes=2)
        for number in (1, 2):
            cluster.start_worker("matching", number)
        yield cluster


@pytest.fixture
def region() -> str:
    """A region that no other test's players are in."""
    return f"region-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def join(arena: Cluster) -> AsyncIterator[Callable[..., Any]]:
    """Sign a new player in, at one node or the other; all are gone after the test."""
    guests: list[Player] = []

    async def join(node: int = 0, role: str = "NORMAL") -> Player:
        player = await Player.at(arena.endpoints[node])
        guests.append(player)
        await player.come(arena, role)
        return player

    yield join
    for guest in guests:
        guest.leave()


class Player(Guest):
    """A guest who plays."""

    name: str
    tokens: Finalized

    async def come(self, arena: Cluster, role: str) -> None:
        """Make an account and sign in."""
        self.name = f"player-{uuid.uuid4().hex[:12]}"
        await self.register(self.name)
        if role != "NORMAL":
            give_role(arena, self.name, role)
        self.tokens = await self.sign_in(self.name)

    async def match(self, region: str, level: int = 5, key: str | None = None, **more: Any) -> MatchState:
        """Look for opponents."""
        preferences = Preferences(region=region, **more)
        asked = FindMatch(difficulty=Difficulty.EASY, level=level, preferences=preferences)
        return cast(MatchState, await self.ask(asked, key))

    async def status(self) -> MatchState:
        """Where one stands."""
        return cast(MatchState, await self.ask(AskMatch()))


def give_role(arena: Cluster, name: str, role: str) -> None:
    path = str(arena.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database, database:
        database.execute("UPDATE users SET role = ? WHERE user_id = ?", (role, name))
    arena.redis.delete(keys.user(name))


def rows(arena: Cluster, query: str, *values: str) -> list[Any]:
    path = str(arena.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
        return database.execute(query, values).fetchall()


async def pair(join: Any, region: str, **more: Any) -> tuple[Player, Player, str]:
    """Two players in a match, and their session."""
    bora, chul = await join(0), await join(1)
    await bora.match(region, **more)
    found = await chul.match(region, **more)
    assert isinstance(found.game_session_id, str)
    await bora.hear(MatchFound)
    return bora, chul, found.game_session_id


async def test_two_who_fit_meet_at_once(join: Any, region: str) -> None:
    bora, chul = await join(0), await join(1)
    waiting = await bora.match(region)
    assert waiting.status is MATCHING
    assert waiting.game_session_id is msgspec.UNSET
    found = await chul.match(region)
    assert (found.status, found.matched_users) == (MATCHED, [bora.name])
    heard = await bora.hear(MatchFound)
    assert heard == MatchFound(
        game_session_id=cast(str, found.game_session_id),
        matched_users=[chul.name],
        difficulty=Difficulty.EASY,
        level=5,
        region=region,
    )
    assert (await bora.status()).matched_users == [chul.name]
    assert await chul.status() == found
    await chul.is_served()
    assert chul.all(MatchFound) == []


async def test_who_has_opponents_gets_no_others_and_cannot_cancel(join: Any, region: str) -> None:
    bora, chul, session_id = await pair(join, region)
    for player, request in ((bora, FindMatch(difficulty=Difficulty.HARD, level=1)), (chul, CancelMatch())):
        refusal = await player.refused(request, "ALREADY_MATCHED")
        assert refusal.status == 409
        assert refusal.data["gameSessionId"] == session_id
        assert refusal.data["status"] == "matched"


async def test_statuses_say_whether_it_was_at_once(join: Any, arena: Cluster, region: str) -> None:
    players = [await join(0), await join(1)]
    asked = {"difficulty": "easy", "level": 5, "preferences": {"region": region}}
    wires = [await Wire.greeted(endpoint) for endpoint in arena.endpoints]
    answers = []
    for wire, player in zip(wires, players, strict=True):
        await wire.ask("auth.resume", {"accessToken": player.tokens.access_token}, 2)
        answers.append(await wire.ask("game.match", asked, 3))
    assert [answer["status"] for answer in answers] == [202, 200]
    assert answers[0]["data"].keys() == {"status", "estimatedMatchTime"}
    assert answers[1]["data"].keys() == {"status", "matchedUsers", "gameSessionId"}
    leave(wires)


async def test_who_waits_sees_for_how_long_and_waits_once(join: Any, region: str) -> None:
    bora = await join()
    await bora.match(region)
    await bora.refused(FindMatch(difficulty=Difficulty.EASY, level=9), "ALREADY_MATCHING")
    standing = await bora.status()
    assert standing.status is MATCHING
    assert 0 <= cast(int, standing.wait_time) < 60
    await bora.ask(CancelMatch())
    await bora.refused(CancelMatch(), "NOT_IN_QUEUE")
    await bora.refused(AskMatch(), "NOT_IN_QUEUE")


async def test_a_repeat_with_a_key_has_one_effect(join: Any, region: str) -> None:
    bora, chul = await join(0), await join(1)
    first = await bora.match(region, key="one")
    assert (await bora.match(region, key="one")).status is first.status is MATCHING
    met = await chul.match(region, key="one")
    assert await chul.match(region, key="one") == met
    assert (await bora.match(region, key="one")).matched_users == [chul.name]


async def test_more_than_two_meet(join: Any, region: str) -> None:
    players = [await join(number % 2) for number in range(3)]
    for player in players[:2]:
        assert (await player.match(region, players=3)).status is MATCHING
    last = await players[2].match(region, players=3)
    assert last.matched_users == [players[0].name, players[1].name]
    assert (await players[1].hear(MatchFound)).matched_users == [players[0].name, players[2].name]


async def test_the_search_widens(join: Any, region: str) -> None:
    bora, chul = await join(0), await join(1)
    await bora.match(region, level=10)
    assert (await chul.match(region, level=11)).status is MATCHING
    assert (await bora.hear(MatchFound)).matched_users == [chul.name]
    assert (await chul.hear(MatchFound)).level == 10


async def test_who_meets_nobody_is_told_in_time(join: Any, region: str) -> None:
    bora = await join()
    began_s = time.monotonic()
    await bora.match(region, max_wait_sec=1)
    assert 1 <= (await bora.hear(MatchTimeout)).wait_time < 60
    assert time.monotonic() - began_s > 0.5
    await bora.refused(AskMatch(), "NOT_IN_QUEUE")


async def test_who_is_away_is_not_matched_and_keeps_the_place(join: Any, arena: Cluster, region: str) -> None:
    bora, chul = await join(0), await join(1)
    await bora.match(region)
    bora.leave()
    await eventually(
        lambda: not arena.redis.hexists(keys.session(bora.name), "connectionId"), "bora's connection gone"
    )
    assert (await chul.match(region)).status is MATCHING
    back = await Player.at(arena.endpoints[1])
    resumed = await back.resume(bora.tokens.access_token)
    assert resumed.match is not None
    assert resumed.match.status is MATCHING
    assert (await back.hear(MatchFound)).matched_users == [chul.name]
    back.leave()
    again = await Player.at(arena.endpoints[0])
    resumed = await again.resume(bora.tokens.access_token)
    assert resumed.match is not None
    assert resumed.match.matched_users == [chul.name]
    again.leave()


async def test_the_games_server_ends_a_session_once(join: Any, arena: Cluster, region: str) -> None:
    bora, chul, session_id = await pair(join, region)
    server = await join(0, "GAME_SERVER")
    results = [Score(user_id=bora.name, score=15_000), Score(user_id=chul.name, score=9)]
    finish = FinishGame(game_session_id=session_id, game_type="suika", results=results)
    await bora.refused(finish, "FORBIDDEN")
    # Somebody who listens: without, the bus keeps nothing.
    arena.redis.xgroup_create(keys.EVENT_BUS, f"test-{session_id}", id="$", mkstream=True)
    ended = cast(Finished, await server.ask(finish, "one"))
    assert [task_id.split("_")[2] for task_id in ended.task_ids] == [bora.name, chul.name]
    assert await server.ask(finish, "one") == ended
    await server.refused(finish, "ALREADY_FINISHED")
    await bora.refused(AskMatch(), "NOT_IN_QUEUE")
    assert (await bora.match(region)).status is MATCHING
    facts = announced(arena, session_id)
    assert [(each.user_id, each.score) for each in facts[0].results] == [(bora.name, 15_000), (chul.name, 9)]
    assert [each.task_id for each in facts[0].results] == ended.task_ids
    (row,) = rows(
        arena,
        "SELECT players, game_type, announced_at FROM game_sessions WHERE session_id = ?",
        session_id,
    )
    assert row[:2] == (f"{bora.name},{chul.name}", "suika")
    assert row[2] is not None


def announced(arena: Cluster, session_id: str) -> list[GameFinished]:
    """What the bus has about a session, once for each id."""
    url = str(arena.settings["redis.url"])
    import redis  # noqa: PLC0415

    with redis.Redis.from_url(url) as raw:
        entries = cast(Any, raw.xrange(keys.EVENT_BUS))
    found = {each.id: each.fact for _, fields in entries for each in [read_announcement(fields[b"m"])]}
    return [
        fact
        for fact in found.values()
        if isinstance(fact, GameFinished) and fact.game_session_id == session_id
    ]


async def test_results_of_strangers_and_of_unknown_sessions_are_refused(join: Any, region: str) -> None:
    bora, chul, session_id = await pair(join, region)
    server = await join(0, "GAME_SERVER")

    async def refused(session_id: str, code: str, *user_ids: str) -> RequestFailed:
        results = [Score(user_id=user_id, score=1) for user_id in user_ids]
        request = FinishGame(game_session_id=session_id, game_type="suika", results=results)
        return cast(RequestFailed, await server.refused(request, code))

    assert "kim" in (await refused(session_id, "INVALID_REQUEST", bora.name, "kim")).message
    assert "twice" in (await refused(session_id, "INVALID_REQUEST", chul.name, chul.name)).message
    await refused("game_unknown", "SESSION_NOT_FOUND")


async def test_results_that_cannot_be_are_refused_and_the_session_goes_on(join: Any, region: str) -> None:
    bora, chul, session_id = await pair(join, region)
    server = await join(0, "GAME_SERVER")
    for game_type, score, code in (("chess", 1, "INVALID_REQUEST"), ("suika", 10_000_001, "INVALID_SCORE")):
        results = [Score(user_id=bora.name, score=1), Score(user_id=chul.name, score=score)]
        request = FinishGame(game_session_id=session_id, game_type=game_type, results=results)
        refusal = cast(RequestFailed, await server.refused(request, code))
        assert "suika" in refusal.message
    results = [Score(user_id=bora.name, score=10_000_000)]
    await server.ask(FinishGame(game_session_id=session_id, game_type="suika", results=results))


async def test_results_teach_skill_where_it_counts(join: Any, arena: Cluster, region: str) -> None:
    bora, chul = await join(0), await join(1)
    asked = FindMatch(difficulty=Difficulty.HARD, level=5, preferences=Preferences(region=region))
    await bora.ask(asked)
    found = cast(MatchState, await chul.ask(asked))
    server = await join(0, "GAME_SERVER")
    results = [Score(user_id=bora.name, score=1), Score(user_id=chul.name, score=9)]
    await server.ask(
        FinishGame(game_session_id=cast(str, found.game_session_id), game_type="suika", results=results)
    )
    known = dict(rows(arena, "SELECT user_id, mu FROM skills WHERE user_id IN (?, ?)", bora.name, chul.name))
    assert known[chul.name] > 25 > known[bora.name]
    await bora.ask(asked)
    assert float(str(arena.redis.hget(keys.game_match(bora.name), "skill"))) == pytest.approx(
        known[bora.name] - 25, abs=0.01
    )


async def test_another_user_is_named_by_game_servers_alone(join: Any, region: str) -> None:
    bora, chul = await join(0), await join(1)
    server = await join(0, "GAME_SERVER")
    preferences = Preferences(region=region)
    for_bora = FindMatch(difficulty=Difficulty.EASY, level=5, preferences=preferences, user_id=bora.name)
    await chul.refused(for_bora, "FORBIDDEN")
    await chul.refused(AskMatch(user_id=bora.name), "FORBIDDEN")
    await chul.refused(CancelMatch(user_id=bora.name), "FORBIDDEN")
    assert cast(MatchState, await server.ask(for_bora)).status is MATCHING
    await chul.match(region)
    assert (await bora.hear(MatchFound)).matched_users == [chul.name]
    assert cast(MatchState, await server.ask(AskMatch(user_id=bora.name))).status is MATCHED


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"difficulty": "easy", "level": 0}, "`level`"),
        ({"difficulty": "easy", "level": 101}, "`level`"),
        ({"difficulty": "easy", "level": "5"}, "`level`"),
        ({"difficulty": "insane", "level": 5}, "`difficulty`"),
        ({"level": 5}, "`difficulty`"),
        ({"difficulty": "easy", "level": 5, "preferences": "asia"}, "`preferences`"),
        ({"difficulty": "easy", "level": 5, "preferences": {"players": 9}}, "`preferences.players`"),
        ({"difficulty": "easy", "level": 5, "preferences": {"players": 1}}, "`preferences.players`"),
        ({"difficulty": "easy", "level": 5, "preferences": {"region": 5}}, "`preferences.region`"),
        ({"difficulty": "easy", "level": 5, "preferences": {"region": "a|b"}}, "`preferences.region`"),
        ({"difficulty": "easy", "level": 5, "preferences": {"maxWaitSec": 61}}, "`preferences.maxWaitSec`"),
        ({"difficulty": "easy", "level": 5, "preferences": {"maxWaitSec": 0}}, "`preferences.maxWaitSec`"),
        ({"difficulty": "easy", "level": 5, "userId": ""}, "`userId`"),
    ],
)
async def test_bad_input_names_its_field(join: Any, arena: Cluster, data: Any, named: str) -> None:
    bora = await join()
    wire = await Wire.greeted(arena["SOCK001"].endpoint)
    await wire.ask("auth.resume", {"accessToken": bora.tokens.access_token}, 2)
    answer = await wire.ask("game.match", data, 3)
    assert (answer["status"], answer["error"]["code"]) == (400, "INVALID_REQUEST")
    assert named in answer["error"]["message"]
    wire.leave()


async def test_losing_a_worker_costs_nobody_the_place(join: Any, arena: Cluster, region: str) -> None:
    waiting, others = [[await join(number % 2) for number in range(6)] for _ in range(2)]
    for level, player in enumerate(waiting):
        await player.match(region, level=10 * (level + 1))
    arena["matching-2"].kill()
    try:
        asking = [
            other.match(region, level=10 * (level + 1), key="one") for level, other in enumerate(others)
        ]
        await asyncio.gather(*asking, return_exceptions=True)
        for player, other in zip(waiting, others, strict=True):
            assert (await player.hear(MatchFound)).matched_users == [other.name]
    finally:
        arena.start_worker("matching", 2)


async def test_a_crowd_is_matched_to_the_last(join: Any, region: str) -> None:
    players = await asyncio.gather(*(join(number % 2) for number in range(20)))
    found = await asyncio.gather(*(player.match(region) for player in players))
    for player, state in zip(players, found, strict=True):
        if state.status is MATCHING:
            await player.hear(MatchFound)
    partners = {player.name: cast(list[str], (await player.status()).matched_users) for player in players}
    assert all(partners[partner] == [name] for name, (partner,) in partners.items())
    assert len(partners) == 20
