"""`lobbyctl top`, its keys pressed, on a system that is up."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from scripts.commands.top import Top
from scripts.commands.top_asking import AskRate, Confirm
from scripts.commands.top_view import sparkline
from storage import keys
from storage.admission import AdmissionSettings
from storage.audit import Audit
from storage.connections import connect
from tests.commands.running import Running, lobbyctl


@pytest.mark.parametrize(
    ("values", "most", "bars"),
    [
        ([], 0, ""),
        ([0, 0], 0, "▁▁"),
        ([0, 1, 2, 4], 0, "▁▃▅█"),
        ([50], 100, "▅"),
    ],
)
def test_a_sparkline_goes_up_to_the_largest(values: list[float], most: float, bars: str) -> None:
    assert sparkline(values, most) == bars


@asynccontextmanager
async def screen(running: Running) -> AsyncIterator[tuple[Top, Pilot[int], Redis]]:
    async with connect(running.endpoints["redis"]) as redis:
        app = Top(redis)
        async with app.run_test(size=(140, 60)) as pilot:
            await pilot.pause()
            yield app, pilot, redis


async def until(pilot: Pilot[int], condition: Any) -> None:
    for _ in range(400):
        if condition():
            return
        await pilot.pause(0.05)
    raise AssertionError("in vain")


async def answer(pilot: Pilot[int], key: str) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
    await pilot.press(key)
    await until(pilot, lambda: not isinstance(pilot.app.screen, Confirm))


async def select(pilot: Pilot[int], table: str, name: str) -> None:
    found = pilot.app.query_one(f"#{table}", DataTable)
    found.focus()
    found.move_cursor(row=found.get_row_index(name))
    await pilot.pause()


def pane(pilot: Pilot[int], name: str) -> str:
    return str(pilot.app.query_one(f"#{name}", Static).content)


@pytest.mark.servers
async def test_what_is_seen_and_done_on_a_running_system(desk: Running) -> None:
    async with screen(desk) as (app, pilot, redis):
        servers, queues = app.query_one("#servers", DataTable), app.query_one("#queues", DataTable)
        assert servers.get_row("SOCK001")[1] == "READY"
        assert "login_queue:high" in {key.value for key in queues.rows}
        assert "600 a minute" in pane(pilot, "admission")
        assert "file_upload: 0 wait" in pane(pilot, "tasks")
        settings = AdmissionSettings(redis)

        await pilot.press("p")
        await answer(pilot, "n")
        assert not (await settings.show()).paused
        await pilot.press("p")
        await answer(pilot, "y")
        await until(pilot, lambda: "PAUSED by" in pane(pilot, "admission"))
        assert (await settings.show()).paused
        await pilot.press("p")
        await answer(pilot, "y")
        await until(pilot, lambda: "600 a minute" in pane(pilot, "admission"))

        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, AskRate))
        app.screen.query_one(Input).value = "900"
        await pilot.press("enter")
        await answer(pilot, "y")
        await until(pilot, lambda: "900 a minute" in pane(pilot, "admission"))

        letter: Any = {"m": b"\xc1", "cause": "CRASHED", "deliveries": 4}
        await redis.xadd(keys.dead_letters("ranking_queue:normal"), letter)
        await until(pilot, lambda: "dead letters of ranking_queue:normal" in pane(pilot, "alerts"))
        assert queues.get_row("ranking_queue:normal")[-1] == "1"
        told = await asyncio.to_thread(
            lobbyctl, "alerts", "--json", "--data-dir", str(desk.data), folder=desk.folder
        )
        assert "dead:ranking_queue:normal" in {each["subject"] for each in json.loads(told.stdout)["alerts"]}
        await select(pilot, "queues", "ranking_queue:normal")
        await pilot.press("e")
        await answer(pilot, "y")

        await select(pilot, "servers", "ranking-2")
        await pilot.press("d")
        await answer(pilot, "y")
        await until(pilot, lambda: servers.get_row("ranking-2")[1] == "STOPPED")
        assert servers.get_row("SOCK001")[1] == "READY"
        actions = [line.split("|")[2] for line in await Audit(redis).tail(5)]
        assert actions == [
            "admission:pause", "admission:resume", "admission:rate", "dead-letters:requeue",
            "server:drain",
        ]  # fmt: skip
        await pilot.press("q")
    done = lobbyctl("top", "--data-dir", str(desk.data), folder=desk.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "status --json" in done.stderr
