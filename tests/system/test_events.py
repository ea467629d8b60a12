"""What one part announces, others do: once each, whoever dies; and one trace follows a player through all."""

import asyncio
import contextlib
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from protocol.announcement import Announcement, GameFinished, LoginCompleted
from protocol.codec import encode
from protocol.connection import event_frame
from protocol.envelope import Delivery
from protocol.messages.auth import Login
from protocol.messages.matching import (
    LONGEST_WAIT_S,
    AskMatch,
    Difficulty,
    FinishGame,
    MatchFound,
    MatchState,
    MatchStatus,
    MatchTimeout,
    Preferences,
    Score,
    Search,
)
from protocol.messages.ranking import RankingUpdate
from storage import keys
from storage.connections import connect_wire
from storage.events import read_announcement
from storage.matches import Matches
from storage.tickets import Record
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.guest import PASSWORD, Guest, Pass
from tests.system.wire import Wire

pytestmark = pytest.mark.servers

LEASE_S = 0.5

DYING = """
import os, pkgutil, runpy, signal
owner, _, name = "{step}".rpartition(".")
owner = pkgutil.resolve_name(owner)
kept = getattr(owner, name)
def die(self, *args, **named):
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(self, *args, **named)
setattr(owner, name, die)
runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""
"""A worker that dies by SIGKILL where it is about to call `step`."""

HANDLED = ("storage.queues.outbox.Outbox.acknowledge", "args[0].queue_id == 'event_bus'")
"""Between handling an announcement and acknowledging it."""

SIGNED_IN = ("workers.login.tokens.Tokens.access", "True")
"""Between spending a ticket and answering it."""


@pytest.fixture(scope="module")
def stage(servers_folder: Path) -> Iterator[Cluster]:
    """Two nodes and a worker of each kind that listens, all of which say what they do."""
    settings = {"queues.lease_s": LEASE_S, "log.level": "debug", "socketd.request_timeout_s": 60.0}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start(nodes=2)
        for kind in ("matching", "ranking"):
            cluster.start_worker(kind)
        yield cluster


@pytest.fixture
def region() -> str:
    """A region that no other test's players are in."""
    return f"region-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def arrive(stage: Cluster) -> AsyncIterator[Callable[..., Any]]:
    """A connection at one node or the other with a new account; all are gone after the test."""
    guests: list[Guest] = []

    async def arrive(node: int = 0) -> tuple[str, Guest]:
        guest = await Guest.at(stage.endpoints[node])
        guests.append(guest)
        name = f"player-{uuid.uuid4().hex[:12]}"
        await guest.register(name)
        return name, guest

    yield arrive
    for guest in guests:
        guest.leave()


def search(region: str, **more: Any) -> Search:
    return Search(difficulty=Difficulty.EASY, level=5, preferences=Preferences(region=region, **more))


async def ready(name: str, guest: Guest, wanted: Search | None) -> Pass:
    """A READY ticket of a login that asked for opponents."""
    ticket = Pass.of(await guest.ask(Login(username=name, password=PASSWORD, auto_match=wanted)))
    await guest.wait(ticket)
    return ticket


async def come_in(name: str, guest: Guest, wanted: Search | None) -> None:
    await guest.finalize(await ready(name, guest, wanted))


def is_heard(stage: Cluster) -> bool:
    """Whether every announcement has been dealt with by everybody."""
    return not stage.redis.xlen(keys.EVENT_BUS)


def standing(stage: Cluster, name: str) -> dict[str, str]:
    return cast("dict[str, str]", stage.redis.hgetall(keys.game_match(name)))


def dying(stage: Cluster, kind: str, step: tuple[str, str], number: int = 9) -> Any:
    """Start a worker that is killed at a step."""
    program = stage.folder / f"dying-{uuid.uuid4().hex[:8]}.py"
    program.write_text(DYING.format(step=step[0], when=step[1]))
    return stage.start_worker(kind, number, program=str(program))


async def test_who_asked_for_it_with_the_login_is_put_into_matching(arrive: Any, region: str) -> None:
    (bora, one), (chul, other) = await arrive(0), await arrive(1)
    await come_in(bora, one, search(region))
    await come_in(chul, other, search(region))
    found = await one.hear(MatchFound)
    assert (found.matched_users, found.region, found.level) == ([chul], region, 5)
    assert (await other.hear(MatchFound)).matched_users == [bora]
    state = cast(MatchState, await one.ask(AskMatch()))
    assert (state.status, state.game_session_id) == (MatchStatus.MATCHED, found.game_session_id)


async def test_who_asked_for_nothing_is_not(stage: Cluster, arrive: Any) -> None:
    name, guest = await arrive()
    await come_in(name, guest, None)
    await eventually(lambda: is_heard(stage), "all announcements are dealt with")
    await guest.refused(AskMatch(), "NOT_IN_QUEUE")


async def test_who_meets_nobody_is_told_in_time(arrive: Any, region: str) -> None:
    name, guest = await arrive()
    await come_in(name, guest, search(region, max_wait_sec=1))
    assert (await guest.hear(MatchTimeout)).wait_time < LONGEST_WAIT_S
    await guest.refused(AskMatch(), "NOT_IN_QUEUE")


async def test_who_comes_back_to_a_match_hears_of_it_again(stage: Cluster, arrive: Any, region: str) -> None:
    (bora, one), (chul, other) = await arrive(0), await arrive(1)
    await come_in(bora, one, search(region))
    await come_in(chul, other, search(region))
    found = await one.hear(MatchFound)
    one.leave()
    back = await Guest.at(stage.endpoints[1])
    await come_in(bora, back, search(f"{region}-2"))
    assert await back.hear(MatchFound) == found
    back.leave()


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"difficulty": "easy", "level": 0}, "`autoMatch.level`"),
        ({"difficulty": "insane", "level": 5}, "`autoMatch.difficulty`"),
        ({"level": 5}, "`difficulty`"),
        (
            {"difficulty": "easy", "level": 5, "preferences": {"players": 9}},
            "`autoMatch.preferences.players`",
        ),
        ({"difficulty": "easy", "level": 5, "preferences": {"maxWaitSec": 61}}, "maxWaitSec`"),
        ("easy", "`autoMatch`"),
    ],
)
async def test_what_cannot_be_looked_for_is_refused_at_the_door(
    stage: Cluster, wanted: Any, named: str
) -> None:
    wire = await Wire.greeted(stage.endpoints[0])
    data = {"username": "nobody", "password": PASSWORD, "autoMatch": wanted}
    answer = await wire.ask("auth.login", data, 2)
    assert (answer["status"], answer["error"]["code"]) == (400, "INVALID_REQUEST")
    assert named in answer["error"]["message"]
    wire.leave()


async def test_a_matching_worker_that_dies_before_it_acknowledges_lets_nobody_wait_twice(
    stage: Cluster, arrive: Any, region: str
) -> None:
    name, guest = await arrive()
    ticket = await ready(name, guest, search(region))
    stage["matching-1"].end()
    killed = dying(stage, "matching", HANDLED)
    await guest.finalize(ticket)
    assert await asyncio.to_thread(killed.wait) == -9
    entry = standing(stage, name)["entry"]
    assert not is_heard(stage)
    stage.start_worker("matching")
    await eventually(lambda: is_heard(stage), "the announcement is dealt with")
    assert standing(stage, name)["entry"] == entry


async def test_who_gave_up_meanwhile_is_not_put_back(stage: Cluster, arrive: Any, region: str) -> None:
    name, guest = await arrive()
    ticket = await ready(name, guest, search(region))
    stage["matching-1"].end()
    killed = dying(stage, "matching", HANDLED)
    await guest.finalize(ticket)
    assert await asyncio.to_thread(killed.wait) == -9
    wire = connect_wire(str(stage.settings["redis.url"]))
    await Matches(wire, session_ttl_s=60.0).cancel(name, Record(f"gives up {name}", 60.0))
    await wire.aclose()
    stage.start_worker("matching")
    await eventually(lambda: is_heard(stage), "the announcement is dealt with")
    await guest.refused(AskMatch(), "NOT_IN_QUEUE")


async def test_a_login_worker_that_dies_before_it_answers_announces_once(
    stage: Cluster, arrive: Any, region: str
) -> None:
    name, guest = await arrive()
    ticket = await ready(name, guest, search(region))
    listener = listen(stage)
    stage["login-1"].end()
    killed = dying(stage, "login", SIGNED_IN)
    finalizing = asyncio.create_task(guest.finalize(ticket))
    assert await asyncio.to_thread(killed.wait) == -9
    stage.start_worker("login")
    assert (await finalizing).user_id == name
    await eventually(lambda: bool(standing(stage, name)), "the player waits")
    assert [each.id for each in announced(stage, listener)] == [f"login_completed:{ticket.tid}"]
    assert cast(MatchState, await guest.ask(AskMatch())).status is MatchStatus.MATCHING


async def test_a_ranking_worker_that_dies_before_it_acknowledges_counts_a_result_once(
    stage: Cluster, arrive: Any, region: str
) -> None:
    (bora, one), (chul, other) = await arrive(0), await arrive(1)
    await come_in(bora, one, search(region))
    await come_in(chul, other, search(region))
    session_id = (await one.hear(MatchFound)).game_session_id
    server = await game_server(stage, arrive)
    stage["ranking-1"].end()
    killed = dying(stage, "ranking", HANDLED)
    results = [Score(user_id=bora, score=15_000), Score(user_id=chul, score=9)]
    await server.ask(FinishGame(game_session_id=session_id, game_type="suika", results=results))
    assert await asyncio.to_thread(killed.wait) == -9
    stage.start_worker("ranking")
    await eventually(lambda: is_heard(stage), "the announcement is dealt with")
    await eventually(lambda: not stage.redis.xlen(keys.SUBMITTED_SCORES), "the scores are kept")
    found = rows(stage, "SELECT user_id, score FROM scores WHERE game_session_id = ?", session_id)
    assert sorted(found) == sorted([(bora, 15_000), (chul, 9)])


async def test_one_trace_follows_a_player_from_the_door_to_the_rank(
    stage: Cluster, arrive: Any, region: str
) -> None:
    listener = listen(stage)
    (bora, one), (chul, other) = await arrive(0), await arrive(1)
    server = await game_server(stage, arrive)
    await come_in(bora, one, search(region))
    await come_in(chul, other, search(region))
    session_id = (await one.hear(MatchFound)).game_session_id
    results = [Score(user_id=bora, score=15_000), Score(user_id=chul, score=9)]
    await server.ask(FinishGame(game_session_id=session_id, game_type="suika", results=results))
    for guest in (one, other):
        await guest.hear(RankingUpdate)
    traces = [str(stage.redis.hget(keys.session(name), "trace")) for name in (bora, chul)]
    assert len({*traces, ""}) == 3
    said = {
        ("SOCK001", "request", "auth.login"),
        ("login-1", "request", "auth.login"),
        ("SOCK001", "request", "auth.finalize"),
        ("login-1", "request", "auth.finalize"),
        ("matching-1", "heard", None),
        ("matching-1", "joined", None),
        ("SOCK001", "event", "MATCH_FOUND"),
        ("ranking-1", "submitted", None),
        ("ranking-1", "kept", None),
        ("SOCK001", "event", "RANKING_UPDATE"),
    }
    await eventually(lambda: said <= steps(stage, traces[0]), "every step of the one is logged")
    elsewhere = ("SOCK002", "event", "RANKING_UPDATE")
    await eventually(lambda: elsewhere in steps(stage, traces[1]), "the other's last one is logged")
    facts = {each.id: each for each in announced(stage, listener)}
    came = next(
        each for each in facts.values() if isinstance(each.fact, LoginCompleted) and each.fact.user_id == bora
    )
    finished = facts[f"game_finished:{session_id}"].fact
    assert isinstance(finished, GameFinished)
    assert came.trace_id == traces[0]
    assert {each.user_id: each.trace for each in finished.results} == dict(
        zip((bora, chul), traces, strict=True)
    )


async def test_a_stay_keeps_its_trace_over_connections(stage: Cluster, arrive: Any) -> None:
    name, guest = await arrive(0)
    ticket = await guest.log_in(name)
    guest.leave()
    elsewhere = await Guest.at(stage.endpoints[1])
    await elsewhere.wait(ticket)
    tokens = await elsewhere.finalize(ticket)
    trace = str(stage.redis.hget(keys.session(name), "trace"))
    again = await Guest.at(stage.endpoints[0])
    await again.resume(tokens.access_token)
    await again.refused(AskMatch(), "NOT_IN_QUEUE")
    said = {
        ("SOCK001", "request", "auth.login"),
        ("SOCK001", "request", "game.status"),
        ("matching-1", "request", "game.status"),
    }
    await eventually(lambda: said <= steps(stage, trace), "every step is logged")
    await again.log_in(name)
    assert str(stage.redis.hget(keys.ticket(str(stage.redis.get(keys.user_ticket(name)))), "trace")) != trace
    for each in (elsewhere, again):
        each.leave()


async def test_what_is_faster_than_the_sign_in_is_told_after_it(stage: Cluster, arrive: Any) -> None:
    name, guest = await arrive(0)
    ticket = await ready(name, guest, None)
    login, queue = stage["login-1"], keys.node_queue("SOCK001")
    connection_id = int(str(stage.redis.hget(keys.ticket(ticket.tid), "owner")).partition("/")[2])
    login.freeze()
    try:
        finalizing = asyncio.create_task(guest.finalize(ticket))
        await guest.is_served()  # so the node has it under way
        for user_id in (name, "somebody-else"):
            event = Delivery(connection_id, event_frame(MatchTimeout(wait_time=7)), user_id=user_id)
            stage.redis.xadd(queue, {"m": encode([event])})
        await eventually(lambda: not stage.redis.xlen(queue), "the node has taken the events")
        assert guest.all(MatchTimeout) == []
    finally:
        login.thaw()
    await finalizing
    await guest.hear(MatchTimeout)
    await guest.is_served()
    assert len(guest.all(MatchTimeout)) == 1


async def game_server(stage: Cluster, arrive: Any) -> Guest:
    """A connection of a game's server."""
    name, guest = await arrive(0)
    rows(stage, "UPDATE users SET role = 'GAME_SERVER' WHERE user_id = ?", name)
    stage.redis.delete(keys.user(name))
    await come_in(name, guest, None)
    return cast(Guest, guest)


def rows(stage: Cluster, query: str, *values: str) -> list[Any]:
    path = str(stage.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database, database:
        return database.execute(query, values).fetchall()


def listen(stage: Cluster) -> str:
    """Where the bus is now: what comes later can be read by `announced`, also once it is dealt with."""
    group = f"test-{uuid.uuid4().hex[:8]}"
    stage.redis.xgroup_create(keys.EVENT_BUS, group, id="$", mkstream=True)
    return group


def announced(stage: Cluster, group: str) -> list[Announcement]:
    """What has been announced since a test listens, which it does no longer then."""
    with redis.Redis.from_url(str(stage.settings["redis.url"])) as raw:
        entries = cast(Any, raw.xreadgroup(group, "test", {keys.EVENT_BUS: ">"}))
        raw.xgroup_destroy(keys.EVENT_BUS, group)
        found = [entry for _, some in entries for entry in some]
        if found:
            raw.xdel(keys.EVENT_BUS, *(entry_id for entry_id, _ in found))
    return [read_announcement(fields[b"m"]) for _, fields in found]


def steps(stage: Cluster, trace: str) -> set[tuple[str, str, str | None]]:
    """What each process has said of a trace: its name, what it did, and the request or event."""
    lines = [
        line
        for _, log in stage.logs()
        for line in log.splitlines(keepends=True)
        if trace in line and line.endswith("\n")
    ]
    said = [json.loads(line) for line in lines]
    return {(each["process"], each["event"], each.get("type")) for each in said if each["trace_id"] == trace}
