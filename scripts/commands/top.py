"""`lobbyctl top`: the running system on one screen, and what operators do about it."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import ClassVar

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid
from textual.widgets import DataTable, Footer, Header, Static

from runtime.daemon import EXIT_ERROR
from scripts.commands import top_view
from scripts.commands.dead_letters_work import requeue_all
from scripts.commands.operators import operator
from scripts.commands.system import with_wire
from scripts.commands.top_asking import AskRate, Confirm
from scripts.commands.top_view import SPARK_LENGTH, Lines, Row, View, fitted
from storage.admission import AdmissionSettings
from storage.dismissals import Dismissals
from storage.errors import StoreAway
from storage.queues import Busy, UnknownQueue
from storage.wire import Wire

EVERY_S = 1.0

SERVER_COLUMNS = ("process", "state", "cpu %", "", "mem %", "clients", "p99 ms", "beat")
TALL_FROM = 30
"""Lines of a terminal on which there is room for whole frames."""

LEAST_BARS = 6
WITHOUT_BARS = 74
"""Columns of a table beside its sparkline."""

QUEUE_COLUMNS = ("queue", "length", "", "pending", "oldest", "dead")


async def top(data_dir: Path, config_file: Path | None) -> int:
    """Show the system until `q`. Answers the exit code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("This needs a terminal. For programs there is `lobbyctl status --json`.", file=sys.stderr)
        return EXIT_ERROR

    async def show(redis: Redis, wire: Wire) -> int | None:
        await redis.ping()
        return await Top(redis, wire).run_async()

    return await with_wire(data_dir, config_file, show)


class Top(App[int]):
    """The screen. What it does, the storage behind it writes into the audit log."""

    TITLE = "lobbyd"
    ENABLE_COMMAND_PALETTE = False
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL_FROM, "-tall")]  # noqa: RUF012 - as its base declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        ("p", "pause", "Pause, resume"),
        ("r", "rate", "Rate"),
        ("d", "drain", "Drain"),
        ("e", "requeue", "Requeue dead"),
        ("tab", "app.focus_next", "Next table"),
    ]
    CSS = """
    DataTable { height: 1fr; border: round $primary; overflow-x: hidden; scrollbar-size-vertical: 1; }
    DataTable:focus { border: round $accent; }
    Grid { grid-size: 3 2; grid-gutter: 0 1; height: 12; }
    Grid Static { border: round $primary; height: 100%; text-wrap: nowrap; text-overflow: ellipsis; }
    #alerts { column-span: 3; }
    .-short DataTable, .-short Grid Static { border: none; border-top: solid $primary; }
    .-short DataTable:focus { border-top: solid $accent; }
    .-short Grid { height: 8; }
    """

    def __init__(self, redis: Redis, wire: Wire) -> None:
        super().__init__()
        self._redis = redis
        self._wire = wire
        self._view: View | None = None
        self._servers: DataTable[Text] = DataTable(id="servers", cursor_type="row")
        self._queues: DataTable[Text] = DataTable(id="queues", cursor_type="row")
        self._texts = {name: Static(id=name, markup=False) for name in PANES}

    def compose(self) -> ComposeResult:
        """Two tables above, the panes below."""
        yield Header(show_clock=True)
        yield self._servers
        yield self._queues
        with Grid():
            yield from self._texts.values()
        yield Footer()

    async def on_mount(self) -> None:
        """Name everything, and begin to look."""
        self._servers.add_columns(*SERVER_COLUMNS)
        self._queues.add_columns(*QUEUE_COLUMNS)
        self._servers.border_title, self._queues.border_title = "processes", "queues"
        for name, pane in self._texts.items():
            pane.border_title = TITLES.get(name, name)
        await self.look()
        self.set_interval(EVERY_S, self.look)

    async def look(self) -> None:
        """Show how it is now; where Redis is away, say so and keep what was seen last."""
        try:
            self._view = view = await top_view.gather(self._redis)
        except (StoreAway, RedisError) as error:
            self.sub_title = f"Redis does not answer: {error}"
            return
        self.sub_title = f"{len(view.alerts)} alerts" if view.alerts else "all is well"
        bars = max(LEAST_BARS, min(SPARK_LENGTH, self.size.width - WITHOUT_BARS))
        _fill(self._servers, top_view.server_rows(view, bars))
        _fill(self._queues, top_view.queue_rows(view, bars))
        for name, lines in PANES.items():
            pane = self._texts[name]
            pane.update(fitted(lines(view), pane.size.height))

    # What operators do.

    @work(exclusive=True)
    async def action_pause(self) -> None:
        """Pause admission, or end the pause."""
        if self._view is None:
            return
        settings = AdmissionSettings(self._redis)
        if self._view.settings.paused:
            await self._confirmed("Let players in again?", lambda: settings.resume(operator()))
        else:
            await self._confirmed("Let nobody in until you resume?", lambda: settings.pause(operator()))

    @work(exclusive=True)
    async def action_rate(self) -> None:
        """Set how many are let in a minute."""
        rate = await self.push_screen_wait(AskRate())
        if rate is not None:
            settings = AdmissionSettings(self._redis)
            question = f"Let in {rate:,} players a minute, all pods together?"
            await self._confirmed(question, lambda: settings.set_rate(rate, operator()))

    @work(exclusive=True)
    async def action_drain(self) -> None:
        """Have the selected process end."""
        server_id = _selected(self._servers)
        if server_id is not None:
            dismissals = Dismissals(self._redis)
            question = f"Drain {server_id}? It finishes what it has accepted, ends, and stays away."
            await self._confirmed(question, lambda: dismissals.dismiss(server_id, operator()))

    @work(exclusive=True)
    async def action_requeue(self) -> None:
        """Have the dead letters of the selected queue worked on again."""
        queue_id = _selected(self._queues)
        if queue_id is not None:
            question = f"Have the dead letters of {queue_id} worked on again?"
            await self._confirmed(question, lambda: requeue_all(self._redis, self._wire, queue_id))

    async def _confirmed(self, question: str, do: Callable[[], Awaitable[object]]) -> None:
        if not await self.push_screen_wait(Confirm(question)):
            self.notify("Nothing was changed.")
            return
        try:
            answer = await do()
        except (StoreAway, RedisError, Busy, UnknownQueue) as error:
            self.notify(str(error), severity="error")
            return
        self.notify("There is no such live process." if answer is None else "Done, and written down.")
        await self.look()


PANES: Mapping[str, Callable[[View], Lines]] = {
    "admission": top_view.admission_lines,
    "matching": top_view.matching_lines,
    "tasks": top_view.tasks_lines,
    "alerts": top_view.alerts_lines,
}
TITLES = {"matching": "matching: wait (longest)", "tasks": "tasks: wait, run, dead"}


def _fill(table: DataTable[Text], rows: Mapping[str, Row]) -> None:
    """Show these rows; the cursor stays on the row of its name."""
    selected = _selected(table)
    scrolled = table.scroll_offset
    table.clear()
    for name, row in rows.items():
        table.add_row(*row, key=name)
    if selected is not None and selected in rows:
        table.move_cursor(row=table.get_row_index(selected), scroll=False)
    table.scroll_to(*scrolled, animate=False)


def _selected(table: DataTable[Text]) -> str | None:
    """The name of the row that the cursor is on."""
    if not table.row_count:
        return None
    return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
