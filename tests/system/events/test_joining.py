"""A login that asks for opponents puts its player into matching; one trace follows them on to the rank."""

import asyncio
import json
from typing import Any, cast

import pytest

from protocol.announcement import GameFinished, LoginCompleted
from protocol.codec import encode
from protocol.connection import event_frame
from protocol.envelope import Delivery
from protocol.messages.matching import (
    LONGEST_WAIT_S,
    AskMatch,
    FinishGame,
    MatchFound,
    MatchState,
    MatchStatus,
    MatchTimeout,
    Score,
)
from protocol.messages.ranking import RankingUpdate
from storage import keys
from tests.system.cluster import Cluster, eventually
from tests.system.events.acting import (
    announced,
    come_in,
    game_server,
    is_heard,
    listen,
    ready,
    search,
)
from tests.system.guest import PASSWORD, Guest
from tests.system.wire import Wire

pytestmark = pytest.mark.servers


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
