"""`lobbyctl ranking` on a system that is up: boards made again, who cheated taken off and put back."""

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from redis import Redis

from client import Player
from protocol.messages.ranking import BoardType, GetRankings, Rankings, SubmitScore
from storage import keys
from tests.commands.running import CHEAP, LOBBYCTL, PATIENCE_S, UP, Running, environment

pytestmark = pytest.mark.servers

PASSWORD = "correct horse battery"
TOTAL = keys.board("total", "all")
SCORES = {"ada": 500, "bob": 700, "eve": 9_000_000}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("ranking"), "--no-demo", *CHEAP)
    try:
        running.wait_for(UP)
        asyncio.run(play(running))
        yield running
    finally:
        running.clean_up()


@pytest.fixture
def redis(running: Running) -> Iterator[Redis]:
    with Redis.from_url(running.endpoints["redis"], decode_responses=True) as redis:
        yield redis


async def signed_in(running: Running, name: str) -> Player:
    host, port = running.endpoints["sockets"]["SOCK001"].rsplit(":", 1)
    player = Player([(host, int(port))])
    await player.register(name, PASSWORD, f"{name}@example.com", name)
    await player.sign_in(name, PASSWORD)
    return player


async def play(running: Running) -> None:
    """Everybody reaches their score."""
    for name, score in SCORES.items():
        async with await signed_in(running, name) as player:
            await player.request(SubmitScore(score=score, game_type="suika", difficulty="hard"))
            while cast(Rankings, await player.request(GetRankings(type=BoardType.TOTAL))).user_score is None:
                await asyncio.sleep(0.02)


def ranking(running: Running, *words: str, code: int = 0) -> dict[str, Any]:
    """What `lobbyctl ranking` says as JSON, to an operator who came by sudo."""
    done = subprocess.run(
        [LOBBYCTL, "ranking", *words, "--json", "--data-dir", str(running.data)],
        cwd=running.folder,
        env={**environment(), "SUDO_USER": "kim"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return cast("dict[str, Any]", json.loads(done.stdout))


def on_the_board(redis: Redis) -> list[str]:
    return cast("list[str]", redis.zrange(TOTAL, 0, -1, desc=True))


def test_boards_that_redis_lost_are_made_again(running: Running, redis: Redis) -> None:
    assert ranking(running, "verify") == {"differences": [], "repaired": 0}
    boards = [name for name in redis.keys("ranking:*") if redis.type(name) == "zset"]
    assert len(boards) >= 8
    redis.delete(*boards)
    differences = ranking(running, "verify", code=1)["differences"]
    assert {"board": TOTAL, "userId": "ada", "seen": None, "wanted": 500} in differences
    assert ranking(running, "rebuild")["rows"] == 2 * len(SCORES)
    assert on_the_board(redis) == ["eve", "bob", "ada"]
    assert ranking(running, "verify")["differences"] == []


def test_what_should_not_be_there_is_repaired_when_that_is_asked_for(running: Running, redis: Redis) -> None:
    redis.zadd(TOTAL, {"mallory": 10_000_000, "ada": 1})
    found = ranking(running, "verify", code=1)
    assert {(each["userId"], each["seen"], each["wanted"]) for each in found["differences"]} == {
        ("mallory", 10_000_000, None),
        ("ada", 1, 500),
    }
    assert "mallory" in on_the_board(redis)
    assert ranking(running, "verify", "--repair", code=1)["repaired"] == 2
    assert on_the_board(redis) == ["eve", "bob", "ada"]


def test_who_cheated_is_taken_off_and_put_back_and_both_are_audited(running: Running, redis: Redis) -> None:
    assert ranking(running, "remove", "EVE", "--reason", "speed hack") == {"userId": "eve", "changed": True}
    assert ranking(running, "remove", "eve")["changed"] is False
    assert on_the_board(redis) == ["bob", "ada"]
    assert ranking(running, "verify")["differences"] == []
    assert ranking(running, "restore", "eve") == {"userId": "eve", "changed": True}
    assert ranking(running, "restore", "eve")["changed"] is False
    assert on_the_board(redis) == ["eve", "bob", "ada"]
    audited = [line.split("|")[1:4] for line in cast("list[str]", redis.lrange(keys.AUDIT_LOGS, 0, -1))]
    assert [line for line in audited if line[2] == "user:eve"] == [
        ["kim", "ranking:restore", "user:eve"],
        ["kim", "ranking:remove", "user:eve"],
    ]


@pytest.mark.parametrize("command", ["remove", "restore"])
def test_who_is_not_there_is_neither_taken_off_nor_put_back(running: Running, command: str) -> None:
    done = running_command(running, command, "eev")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "There is no user eev.\n")


def test_a_frozen_board_that_differs_is_named_and_repaired(running: Running) -> None:
    with closing(sqlite3.connect(running.data / "lobbyd.sqlite3")) as database, database:
        bests = [
            ("20200515", "suika", "ada", 50, 1_589_500_800_000),
            ("20200515", "suika", "bob", 70, 1_589_500_800_000),
        ]
        database.executemany("INSERT INTO best_scores VALUES (?, ?, ?, ?, ?)", bests)
    ranking(running, "freeze")
    assert ranking(running, "verify") == {"differences": [], "repaired": 0}
    with closing(sqlite3.connect(running.data / "lobbyd.sqlite3")) as database, database:
        database.execute("UPDATE frozen_places SET score = 60 WHERE user_id = 'ada' AND period = '202005'")
    found = ranking(running, "verify", code=1)["differences"]
    place = {"place": 2, "rank": 2, "score": 60}
    ada = {"frozen": "202005", "userId": "ada", "seen": place, "wanted": place | {"score": 50}}
    assert found == [ada | {"gameType": "suika"}, ada | {"gameType": None}]
    said = running_command(running, "verify")
    assert said.returncode == 1
    assert "frozen 202005 suika: ada has 60 at place 2, rank 2 and should have 50 at" in said.stdout
    assert ranking(running, "verify", "--repair", code=1)["repaired"] == 2
    assert ranking(running, "verify") == {"differences": [], "repaired": 0}


def test_only_what_is_over_is_frozen(running: Running) -> None:
    assert ranking(running, "freeze") == {"frozen": []}
    found = ranking(running, "freeze", "202001")["frozen"]
    assert found == [{"period": "202001", "gameType": None, "players": 0}]
    for period, words in (("209901", "not over yet"), ("20241301", "no period")):
        done = running_command(running, "freeze", period)
        assert done.returncode == 2
        assert words in done.stderr


def running_command(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOBBYCTL, "ranking", *words, "--data-dir", str(running.data)],
        cwd=running.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
