"""`lobbyctl top`, its keys pressed, on a system that is up."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from rich.cells import cell_len
from textual.containers import Grid
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from protocol.envelope import queue_create
from protocol.queues import QueueType
from scripts.commands.top import Top
from scripts.commands.top_asking import AskRate, Confirm
from scripts.commands.top_view import SPARK_LENGTH, sparkline
from storage import keys
from storage.admission import AdmissionSettings
from storage.audit import Audit
from storage.connections import connect, connect_wire
from storage.monitoring import Monitoring
from storage.queues import QueueServer
from tests.commands.running import PATIENCE_S, Running, lobbyctl
from tests.servers import RedisServer

LONGEST = "portal_queue:data_processing"


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
    url = running.endpoints["redis"]
    async with connect(url) as redis, aclosing(connect_wire(url)) as wire:
        app = Top(redis, wire)
        async with app.run_test(size=(140, 60)) as pilot:
            await until(pilot, lambda: app.query_one("#servers", DataTable).row_count)
            yield app, pilot, redis


async def until(pilot: Pilot[int], condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await pilot.pause(0.05)


async def answer(pilot: Pilot[int], key: str) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
    await pilot.press(key)
    await until(pilot, lambda: not isinstance(pilot.app.screen, Confirm))


async def select(pilot: Pilot[int], table: str, name: str) -> None:
    found = pilot.app.query_one(f"#{table}", DataTable)
    found.focus()
    found.move_cursor(row=found.get_row_index(name))
    await pilot.pause()


def state(servers: DataTable[Any], name: str) -> str:
    return str(servers.get_row(name)[1])


def pane(pilot: Pilot[int], name: str) -> str:
    return str(pilot.app.query_one(f"#{name}", Static).content)


@pytest.mark.servers
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_all_of_it_fits_on_the_screen(own_valkey: RedisServer, size: tuple[int, int]) -> None:
    async with connect(own_valkey.url) as redis:
        monitoring = Monitoring(redis)
        await QueueServer(redis).create(
            queue_create("portal", LONGEST, QueueType.JOB, max_size=9, expire_s=60.0)
        )
        busy: Any = {"serverType": "LOGIN", "statusCode": "DRAINING", "cpuUsage": 100, "connections": 99_999}
        await redis.sadd(keys.SERVER_IDS, "operations-10")
        await redis.hset(keys.server_status("operations-10"), mapping={**busy, "latencyP99Ms": 99_999})
        for _ in range(SPARK_LENGTH + 1):
            await monitoring.keep(await monitoring.sample())
        app = Top(redis, connect_wire(own_valkey.url))  # which nothing is sent by
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.query_one("#queues", DataTable).row_count)
            await pilot.pause()
            tables, panes = [*app.query(DataTable)], [*app.query_one(Grid).query(Static)]
            assert all(table.virtual_size.width <= table.size.width for table in tables)
            for shown in panes:
                assert max(map(cell_len, str(shown.content).splitlines())) <= shown.size.width, shown.id
            for each in (*tables, *panes):
                assert each.size.height >= 3, each.id
                assert app.screen.region.contains_region(each.region), each.id


@pytest.mark.servers
async def test_a_redis_that_is_away_is_said_and_waited_for(own_valkey: RedisServer) -> None:
    async with connect(own_valkey.url) as redis:
        app = Top(redis, connect_wire(own_valkey.url))  # which nothing is sent by
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.sub_title == "all is well")
            await asyncio.to_thread(own_valkey.stop)
            await until(pilot, lambda: app.sub_title.startswith("Redis does not answer"))
            await asyncio.to_thread(own_valkey.start)
            await until(pilot, lambda: app.sub_title == "all is well")


@pytest.mark.servers
async def test_what_is_seen_and_done_on_a_running_system(desk: Running) -> None:
    async with screen(desk) as (app, pilot, redis):
        servers, queues = app.query_one("#servers", DataTable), app.query_one("#queues", DataTable)
        assert state(servers, "SOCK001") == "READY"
        assert "login_queue:high" in {key.value for key in queues.rows}
        assert "600 a minute" in pane(pilot, "admission")
        assert "file_upload: 0, 0" in pane(pilot, "tasks")
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
        assert str(queues.get_row("ranking_queue:normal")[-1]) == "1"
        above = range(queues.get_row_index("ranking_queue:normal"))
        assert all(str(queues.get_row_at(row)[-1]) != "–" for row in above), "trouble comes first"
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
        await until(pilot, lambda: state(servers, "ranking-2") == "STOPPED")
        assert state(servers, "SOCK001") == "READY"
        actions = [line.split("|")[2] for line in await Audit(redis).tail(5)]
        assert actions == [
            "admission:pause", "admission:resume", "admission:rate", "dead-letters:requeue",
            "server:drain",
        ]  # fmt: skip
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, AskRate))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)
    done = lobbyctl("top", "--data-dir", str(desk.data), folder=desk.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "status --json" in done.stderr
