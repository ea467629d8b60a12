"""An announcement is dealt with once by each who listens, also where they die over it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from protocol.messages.matching import (
    AskMatch,
    FinishGame,
    MatchFound,
    MatchState,
    MatchStatus,
    Score,
)
from protocol.messages.portal import Submit, Submitted, TaskType
from protocol.queues import Lane
from storage import keys
from storage.admission import AdmissionSettings
from storage.connections import connect, connect_wire
from storage.matches import Matches
from storage.tickets import Record
from tests.system.cluster import Cluster, eventually
from tests.system.events.acting import (
    HANDLED,
    SIGNED_IN,
    announced,
    come_in,
    dying,
    game_server,
    is_heard,
    listen,
    ready,
    rows,
    search,
    standing,
)
from tests.system.guest import Guest

pytestmark = pytest.mark.servers


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


async def test_urgent_work_raises_its_player_where_who_hands_it_in_may(stage: Cluster, arrive: Any) -> None:
    server = await game_server(stage, arrive)
    player, players = await arrive(1)
    await come_in(player, players, None)
    (bora, one), (chul, other) = await arrive(0), await arrive(1)
    async with shut(stage):
        for name, guest in ((bora, one), (chul, other)):
            await guest.stream(await guest.log_in(name))
        assert tiers(stage) == [(bora, "NORMAL"), (chul, "NORMAL")]

        accepted = cast(Submitted, await server.ask(urgent(chul)))
        await eventually(lambda: is_heard(stage), "the announcement is dealt with")
        assert tiers(stage) == [(chul, "PREMIUM"), (bora, "NORMAL")]
        written = cast("list[str]", stage.redis.lrange(keys.AUDIT_LOGS, 0, -1))
        assert any("|queue:raise|queue:portal:PREMIUM|ALLOWED|queue-raise" in line for line in written)
        said = [line for _, log in stage.logs() for line in log.splitlines() if accepted.task_id in line]
        assert any('"heard"' in line and '"login-1"' in line for line in said)

        await players.ask(urgent(None))  # who hands in their own goes before nobody
        await server.ask(urgent(bora, Lane.NORMAL))  # nor does what is not urgent
        await eventually(lambda: is_heard(stage), "the announcement is dealt with")
        back = await Guest.at(stage.endpoints[0])
        await back.log_in(player)
        assert tiers(stage) == [(chul, "PREMIUM"), (bora, "NORMAL"), (player, "NORMAL")]
        back.leave()


async def test_a_login_worker_that_dies_before_it_acknowledges_raises_once(
    stage: Cluster, arrive: Any
) -> None:
    server = await game_server(stage, arrive)
    name, guest = await arrive(0)
    async with shut(stage):
        await guest.log_in(name)
        raised = int(stage.redis.hget(keys.PORTAL_STATS, "raised") or 0)
        stage["login-1"].end()
        killed = dying(stage, "login", HANDLED)
        await server.ask(urgent(name))
        assert await asyncio.to_thread(killed.wait) == -9
        assert (name, "PREMIUM") in tiers(stage)
        stage.start_worker("login")
        await eventually(lambda: is_heard(stage), "the announcement is dealt with")
        assert int(stage.redis.hget(keys.PORTAL_STATS, "raised") or 0) == raised + 1


@contextlib.asynccontextmanager
async def shut(stage: Cluster) -> AsyncIterator[None]:
    """Nobody is let in."""
    async with connect(str(stage.settings["redis.url"])) as client:
        await AdmissionSettings(client).pause("kim")
        try:
            yield
        finally:
            await AdmissionSettings(client).resume("kim")


def urgent(user_id: str | None, priority: Lane = Lane.HIGH) -> Submit:
    """Slow work for a player."""
    said = "what waits for you"
    return Submit(
        task_type=TaskType.NOTIFICATION, priority=priority, user_id=user_id, message=said, recipients=("x",)
    )


def tiers(stage: Cluster) -> list[tuple[str, str]]:
    """Who waits, in order, and in which tier."""
    tids = stage.redis.zrange(keys.PORTAL_WAITING, 0, -1)
    tickets = [stage.redis.hgetall(keys.ticket(str(tid))) for tid in tids]
    return [(each["uid"], each["tier"]) for each in cast("list[dict[str, str]]", tickets)]
