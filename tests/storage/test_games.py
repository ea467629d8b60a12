"""Sessions of play in the database: written once, finished once, and what they taught of their players."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from storage.database import Database
from storage.games import AlreadyFinished, Finish, Games, Skill
from storage.matches import Session
from storage.migrations import migrate
from storage.servers import now_ms

SESSION = Session("game-1", "easy", 5, "asia", 2.5, ("bora", "chul"), 1_000)
FINISH = Finish(SESSION, "suika", (("chul", 15_000), ("bora", 9)), "request-1", now_ms())


def rate(before: Sequence[Skill | None], scores: Sequence[int]) -> Sequence[Skill]:
    return [
        Skill((skill.mu if skill else 25.0) + score, 8.0) for skill, score in zip(before, scores, strict=True)
    ]


@pytest.fixture
async def games(database_url: str) -> AsyncIterator[Games]:
    await migrate(database_url)
    database = Database(database_url)
    yield Games(database)
    await database.close()


async def test_a_session_is_written_once(games: Games) -> None:
    other = replace(SESSION, session_id="game-2", region="")
    await games.write([SESSION])
    await games.write([replace(SESSION, level=99), other])
    await games.write([])
    assert await games.session("game-1") == SESSION
    assert await games.session("game-2") == other
    assert await games.session("game-3") is None


async def test_one_request_finishes_a_session_and_its_repeat_gets_the_same(games: Games) -> None:
    await games.write([SESSION])
    assert await games.finish(FINISH, None) == FINISH
    assert await games.finish(replace(FINISH, scores=(), finished_ms=5), None) == FINISH
    with pytest.raises(AlreadyFinished):
        await games.finish(replace(FINISH, request_id="request-2"), None)


async def test_a_session_that_was_not_written_is_finished_all_the_same(games: Games) -> None:
    assert await games.finish(FINISH, None) == FINISH
    await games.write([SESSION])
    assert await games.session("game-1") == SESSION
    with pytest.raises(AlreadyFinished):
        await games.finish(replace(FINISH, request_id="request-2"), None)


async def test_of_many_that_finish_at_once_one_does(games: Games) -> None:
    await games.write([SESSION])
    finishes = [replace(FINISH, request_id=f"request-{number}") for number in range(5)]
    outcomes = await asyncio.gather(
        *(games.finish(finish, rate) for finish in finishes), return_exceptions=True
    )
    assert sum(isinstance(outcome, Finish) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyFinished) for outcome in outcomes) == 4
    assert (await games.skills("easy", {"chul"}))["chul"].mu == 15_025


async def test_an_end_is_unannounced_until_it_is_noted(games: Games) -> None:
    finish = replace(FINISH, finished_ms=now_ms() - 20_000)
    await games.finish(finish, None)
    assert await games.unannounced(30, 3600, 10) == []
    assert await games.unannounced(10, 3600, 10) == [finish]
    assert await games.unannounced(10, 15, 10) == []
    await games.announced("game-1")
    assert await games.unannounced(10, 3600, 10) == []


async def test_skill_is_learnt_by_difficulty_and_goes_on_from_what_was_known(games: Games) -> None:
    await games.finish(FINISH, rate)
    await games.finish(FINISH, rate)  # a repeat teaches nothing
    assert await games.skills("easy", {"bora", "chul", "dana"}) == {
        "bora": Skill(34.0, 8.0),
        "chul": Skill(15_025.0, 8.0),
    }
    assert await games.skills("hard", {"bora"}) == {}
    second = replace(SESSION, session_id="game-2", players=("bora", "dana"))
    await games.finish(replace(FINISH, session=second, scores=(("bora", 1), ("dana", 2))), rate)
    assert await games.skills("easy", {"bora", "dana"}) == {
        "bora": Skill(35.0, 8.0),
        "dana": Skill(27.0, 8.0),
    }
    alone = replace(SESSION, session_id="game-3")
    await games.finish(replace(FINISH, session=alone, scores=(("bora", 9),)), rate)
    assert (await games.skills("easy", {"bora"}))["bora"].mu == 35.0
