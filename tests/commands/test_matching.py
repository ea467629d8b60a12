"""`lobbyctl matching` says who waits for opponents, and why."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.running import lobbyctl
from tests.storage.hall import opened
from tests.storage.lobby import Lobby, open_lobby

pytestmark = pytest.mark.servers


class Desk:
    """An operator's place at a system of which there are only its stores."""

    def __init__(self, url: str, database_url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.stores = f'[redis]\nurl = "{url}"\n[database]\nurl = "{database_url}"\n'
        (folder / "config.toml").write_text(f'{self.stores}[matching]\neasy = "0:0 10:5 30:99+"\n')

    def type(self, *words: str) -> str:
        """What `lobbyctl matching` prints."""
        done: subprocess.CompletedProcess[str] = lobbyctl(
            "matching", *words, "--config", "config.toml", folder=self.folder
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, *words: str) -> Any:
        """The same as JSON."""
        return json.loads(self.type(*words, "--json"))

    def given(self, prepare: Callable[[Lobby], Awaitable[object]]) -> None:
        """Have something be so in Redis."""

        async def work() -> None:
            async with open_lobby(self.url) as lobby:
                await prepare(lobby)

        asyncio.run(work())


@pytest.fixture
def desk(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Desk:
    return Desk(valkey_url, sqlite_url, tmp_path)


def test_where_nobody_waits_it_says_so(desk: Desk) -> None:
    assert desk.type().startswith("Nobody waits")
    assert desk.read() == {"queues": []}


async def test_of_who_does_not_wait_it_says_so(desk: Desk, sqlite_url: str) -> None:
    async with opened(desk.url, sqlite_url) as hall:
        await hall.register("bora")
    assert "neither waits" in await asyncio.to_thread(desk.type, "why", "bora")
    found = await asyncio.to_thread(desk.read, "why", "bora")
    assert found == {"userId": "bora", "status": None, "waitsFor": None}
    said = await asyncio.to_thread(
        lobbyctl, "matching", "why", "nobody", "--config", "config.toml", folder=desk.folder
    )
    assert (said.returncode, said.stdout, said.stderr) == (1, "", "There is no user nobody.\n")


def test_it_shows_queues_waits_and_quality(desk: Desk) -> None:
    async def prepare(lobby: Lobby) -> None:
        await lobby.wait("bora", "chul", level=7)
        await lobby.pass_time(20)
        await lobby.match("game-1", "bora", "chul")
        await lobby.wait("dana", "eun", "fay", difficulty="hard", level=100)

    desk.given(prepare)
    easy, hard = desk.read()["queues"]
    assert (easy["difficulty"], easy["level"], easy["waiting"], easy["matched"]) == ("easy", 7, 0, 2)
    assert 20 <= easy["waitSec"] < 40
    assert easy["quality"] == pytest.approx(1 / 1.2, abs=0.001)
    assert (hard["difficulty"], hard["waiting"], hard["waitSec"]) == ("hard", 3, None)
    shown = desk.type()
    assert "hard 100" in shown
    assert "83%" in shown
    assert "3 wait" in shown


def test_it_says_what_a_player_waits_for(desk: Desk) -> None:
    async def prepare(lobby: Lobby) -> None:
        await lobby.wait("bora", level=10)
        await lobby.wait("chul", level=16)
        await lobby.pass_time(12)

    desk.given(prepare)
    found = desk.read("why", "Bora")
    assert (found["status"], found["waitsFor"], found["inReach"]) == ("matching", "opponents", 1)
    assert (found["levels"], found["otherRegions"]) == (5, False)
    assert 0 < found["widerInSec"] <= 18
    told = desk.type("why", "bora")
    assert "levels 5 to 15, asia: 0 others" in told
    assert "widen in" in told
    desk.given(lambda lobby: lobby.wait("dana", level=12))
    assert desk.read("why", "bora")["waitsFor"] == "match"
    desk.given(lambda lobby: lobby.pass_time(20))
    assert "all regions: 2 others" in desk.type("why", "bora")
    desk.given(lambda lobby: lobby.disconnect("bora"))
    assert desk.read("why", "bora")["waitsFor"] == "connection"
    assert "not connected" in desk.type("why", "bora")


def test_it_says_whom_a_player_has_met(desk: Desk) -> None:
    async def prepare(lobby: Lobby) -> None:
        await lobby.wait("bora", "chul")
        await lobby.match("game-1", "bora", "chul")

    desk.given(prepare)
    found = desk.read("why", "bora")
    assert (found["status"], found["matchedUsers"]) == ("matched", ["chul"])
    assert "in session game-1 with chul" in desk.type("why", "bora")


def test_a_search_that_gets_narrower_is_a_wrong_setting(desk: Desk) -> None:
    (desk.folder / "config.toml").write_text(f'{desk.stores}[matching]\nhard = "0:5 9:1"\n')
    done = lobbyctl("matching", "why", "bora", "--config", "config.toml", folder=desk.folder)
    assert done.returncode == 2
    assert "matching.hard" in done.stderr
    assert "narrower" in done.stderr
