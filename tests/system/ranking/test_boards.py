"""Scores and boards: what is accepted, counts once, and is shown."""

import asyncio
from datetime import datetime
from typing import Any, cast

import pytest

from protocol.announcement import GameFinished, Result
from protocol.messages.ranking import (
    BoardType,
    GetFriendRankings,
    GetRankings,
    Ranking,
    Rankings,
    RankingUpdate,
    ScoreAccepted,
    SubmitScore,
)
from storage import keys
from storage.boards import Best
from storage.connections import connect_wire
from storage.database import Database
from storage.events import announce
from storage.past_boards import PastBoards
from storage.periods import Calendar
from storage.queues import Outbox
from storage.scores import Scores
from storage.servers import now_ms
from tests.storage.hall import accepted
from tests.system.cluster import Cluster
from tests.system.guest import HEARING_S
from tests.system.ranking.playing import SignUp, processed, read, score_of, shown, submit
from workers.ranking.freezing import Freezing

pytestmark = pytest.mark.servers


async def test_a_score_is_on_every_board(sign_up: SignUp) -> None:
    ((name, guest),) = await sign_up(1)
    update = await submit(guest, 900, "game0")
    assert (update.type, update.period, update.score) == (BoardType.TOTAL, "all", 900)
    assert update.previous_rank is None
    assert name in str(update.task_id)
    await guest.hear(RankingUpdate, 4)
    assert {(each.type, each.rank, each.previous_rank) for each in guest.all(RankingUpdate)[:4]} == {
        (board_type, update.rank, None) for board_type in BoardType
    }
    for board_type in BoardType:
        assert await read(guest, board_type, "game0") == Rankings(
            rankings=[Ranking(rank=1, user_id=name, nickname=name, score=900)],
            user_rank=1,
            user_score=900,
            total_players=1,
        )
        assert (await read(guest, board_type)).user_score == 900


async def test_a_better_score_replaces_a_worse_one_and_never_the_reverse(sign_up: SignUp) -> None:
    ((_, guest),) = await sign_up(1)
    for score, best in ((500, 500), (400, 500), (600, 600), (600, 600)):
        update = await submit(guest, score, "game1")
        assert update.score == score
        assert (await read(guest, BoardType.DAILY, "game1")).user_score == best


async def test_equal_scores_share_a_rank_in_the_order_in_which_they_were_reached(sign_up: SignUp) -> None:
    players = await sign_up(5)
    for (_, guest), score in zip(players, (700, 800, 700, 600, 700), strict=True):
        await submit(guest, score, "game2")
        await asyncio.sleep(0.005)
    names = [name for name, _ in players]
    wanted = [
        (1, names[1], 800),
        (2, names[0], 700),
        (2, names[2], 700),
        (2, names[4], 700),
        (5, names[3], 600),
    ]
    guest = players[4][1]
    for board_type in BoardType:
        whole = await read(guest, board_type, "game2")
        assert shown(whole) == wanted
        assert (whole.user_rank, whole.user_score, whole.total_players) == (2, 700, 5)
    assert shown(await read(guest, BoardType.TOTAL, "game2", offset=2, limit=2)) == wanted[2:4]
    assert shown(await read(guest, BoardType.TOTAL, "game2", offset=5)) == []
    assert shown(await read(guest, BoardType.TOTAL, "game2", around=True, limit=3)) == wanted[2:5]
    assert shown(await read(players[1][1], BoardType.TOTAL, "game2", around=True, limit=3)) == wanted[:3]


async def test_who_has_no_score_has_no_rank(sign_up: SignUp) -> None:
    (_, guest), (_, stranger) = await sign_up(2)
    await submit(guest, 1, "game3")
    found = await read(stranger, BoardType.TOTAL, "game3")
    assert (len(found.rankings), found.user_rank, found.user_score, found.total_players) == (1, None, None, 1)
    around = await read(stranger, BoardType.TOTAL, "game3", around=True)
    assert around == Rankings(rankings=[], user_rank=None, user_score=None, total_players=1)
    past = await read(stranger, BoardType.WEEKLY, "game3", period="2024W51")
    assert past == Rankings(rankings=[], user_rank=None, user_score=None, total_players=0)


async def test_a_repeat_with_the_same_key_counts_once(arcade: Cluster, sign_up: SignUp) -> None:
    ((name, guest),) = await sign_up(1)
    answers = [await guest.ask(score_of(5, "game4"), key="once") for _ in range(3)]
    assert len({cast(ScoreAccepted, answer).task_id for answer in answers}) == 1
    task_id = cast(ScoreAccepted, answers[0]).task_id
    await processed(guest, task_id)
    await submit(guest, 6, "game4")
    updates = [(update.task_id, update.type) for update in guest.all(RankingUpdate)]
    assert [updates.count((task_id, board_type)) for board_type in BoardType] == [1] * 4
    assert arcade.redis.hgetall(keys.temp_score(name)) | {"timestamp": ""} == {
        "score": "6", "game_type": "game4", "difficulty": "medium", "timestamp": ""
    }  # fmt: skip


async def test_a_score_that_cannot_be_is_refused(sign_up: SignUp) -> None:
    ((_, guest),) = await sign_up(1)
    for score in (-1, 1001, 2**62):
        refusal = await guest.refused(score_of(score, "game5"), "INVALID_SCORE")
        assert "0 to 1000" in str(refusal)
    assert "`gameType`" in str(await guest.refused(score_of(1, "chess"), "INVALID_REQUEST"))
    hardest = SubmitScore(score=1, game_type="game5", difficulty="impossible")
    assert "`difficulty`" in str(await guest.refused(hardest, "INVALID_REQUEST"))
    for period in ("2024W54", "20241301", "all", "2024", "２０２４１２"):
        refusal = await guest.refused(GetRankings(type=BoardType.DAILY, period=period), "INVALID_REQUEST")
        assert "`period`" in str(refusal)
    await guest.refused(GetRankings(type=BoardType.TOTAL, game_type="chess"), "INVALID_REQUEST")
    assert (await read(guest, BoardType.TOTAL, "game5")).total_players == 0


async def test_nobody_submits_for_another_but_who_is_trusted(arcade: Cluster, sign_up: SignUp) -> None:
    (name, guest), (other, rival) = await sign_up(2)
    await guest.refused(score_of(1, user_id=other), "FORBIDDEN")
    await guest.refused(GetFriendRankings(user_id=other), "FORBIDDEN")
    arcade.redis.hset(keys.user(name), "role", "GAME_SERVER")
    await guest.sign_in(name)
    await guest.refused(score_of(1, user_id="nobody-at-all"), "USER_NOT_FOUND")
    accepted = cast(ScoreAccepted, await guest.ask(score_of(77, "game6", user_id=other)))
    await processed(rival, accepted.task_id)
    assert shown(await read(rival, BoardType.TOTAL, "game6")) == [(1, other, 77)]


async def test_the_results_of_a_game_become_scores(arcade: Cluster, sign_up: SignUp) -> None:
    (one, guest), (other, rival) = await sign_up(2)
    wire = connect_wire(str(arcade.settings["redis.url"]))
    outbox = Outbox(wire)
    running = asyncio.create_task(outbox.run())
    results = (Result(one, 10, f"task_1_{one}_1"), Result(other, 20, f"task_1_{other}_1"))
    fact = GameFinished("session-1", "game7", "easy", results, now_ms())
    for _ in range(2):  # as after a crash
        announce(outbox, "game_finished:session-1", "trace", fact)
    for name, player in ((one, guest), (other, rival)):
        await processed(player, f"task_1_{name}_1")
    assert shown(await read(guest, BoardType.TOTAL, "game7")) == [(1, other, 20), (2, one, 10)]
    running.cancel()
    await wire.aclose()


async def test_a_score_of_a_game_session_needs_one_that_was_played_long_enough_and_once(
    arcade: Cluster, sign_up: SignUp
) -> None:
    (one, guest), (other, _), (_, stranger) = await sign_up(3)
    for session_id, age_ms in (("played", 5000), ("new", -60_000)):  # young for as long as the test takes
        session: dict[str | bytes, Any] = {
            "difficulty": "easy", "level": 1, "region": "", "cost": 0, "players": f"{one},{other}",
            "created_at": now_ms() - age_ms,
        }  # fmt: skip
        arcade.redis.hset(keys.game_session(session_id), mapping=session)  # type: ignore[arg-type]
    accepted = await submit(guest, 50, "game9", game_session_id="played")
    assert accepted.score == 50
    for session_id, words in (("played", "has a result"), ("new", "No game is over"), ("none", "no such")):
        asked = score_of(60, "game9", game_session_id=session_id)
        assert words in str(await guest.refused(asked, "INVALID_SCORE"))
    slower = await guest.refused(score_of(60, "game3", game_session_id="played"), "INVALID_SCORE")
    assert "within 3600 s" in str(slower)
    await stranger.refused(score_of(60, "game9", game_session_id="played"), "INVALID_SCORE")
    assert shown(await read(guest, BoardType.TOTAL, "game9")) == [(1, one, 50)]


async def test_scores_of_a_worker_that_is_killed_count_once(arcade: Cluster, sign_up: SignUp) -> None:
    players = await sign_up(4)
    asked = []
    for number in range(1, 41):
        _, guest = players[number % 4]
        asked.append(asyncio.create_task(guest.ask(score_of(number, "game8"))))
        if number in {15, 30}:
            await asyncio.sleep(0.05)
            arcade["ranking-2"].kill()
            arcade.start_worker("ranking", 2)
    accepted = [cast(ScoreAccepted, answer) for answer in await asyncio.gather(*asked)]
    assert len({answer.task_id for answer in accepted}) == 40
    async with asyncio.timeout(HEARING_S):
        while arcade.redis.xlen(keys.SUBMITTED_SCORES):
            await asyncio.sleep(0.05)
    names = [name for name, _ in players]
    found = await read(players[0][1], BoardType.TOTAL, "game8")
    assert shown(found) == [(1, names[0], 40), (2, names[3], 39), (3, names[2], 38), (4, names[1], 37)]


async def test_boards_of_the_past_are_shown_as_those_of_now_are(arcade: Cluster, sign_up: SignUp) -> None:
    (one, guest), (other, rival), (third, _) = await sign_up(3)
    calendar, database = Calendar("UTC"), Database(str(arcade.settings["database.url"]))
    reached = [
        ("2024-12-29", one, 900),
        ("2024-12-30", one, 300),
        ("2025-01-01", other, 300),
        ("2025-01-02", third, 500),
    ]
    scores, past = Scores(database), PastBoards(database)
    for number, (day, name, score) in enumerate(reached):
        at_ms = int(datetime.fromisoformat(f"{day}T12:00+00:00").timestamp() * 1000)
        best = (day.replace("-", ""), "game8", Best(name, score, at_ms))
        await scores.keep([accepted(number, name, score, at_ms, "game8")], [best], set())
    freezing = Freezing(past, calendar)
    for period in ("2025W01", "202412"):
        await freezing.freeze(calendar.ending(period), lambda board, players: None)
    await database.close()
    week = await read(guest, BoardType.WEEKLY, "game8", period="2025W01")
    assert shown(week) == [(1, third, 500), (2, one, 300), (2, other, 300)]
    assert (week.user_rank, week.user_score, week.total_players) == (2, 300, 3)
    around = await read(rival, BoardType.WEEKLY, "game8", period="2025W01", around=True, limit=1)
    assert shown(around) == [(2, other, 300)]
    assert shown(await read(rival, BoardType.MONTHLY, "game8", period="202412")) == [(1, one, 900)]
    assert shown(await read(rival, BoardType.MONTHLY, "game8", period="202412", offset=1)) == []
