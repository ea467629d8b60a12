"""The rush as it goes on: a picture for terminals, drawn from the generators' counts."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from bench.rush_crowd import Crowd
from bench.rush_story import Stage

COLOURS = {
    Stage.OUTSIDE: "bright_black",
    Stage.CONNECTED: "bright_black",
    Stage.LOGGING_IN: "magenta",
    Stage.WAITING: "yellow",
    Stage.READY: "cyan",
    Stage.IN: "green",
    Stage.LOST: "red",
}
NAMES = {
    Stage.OUTSIDE: "outside",
    Stage.CONNECTED: "connected",
    Stage.LOGGING_IN: "logging in",
    Stage.WAITING: "waiting",
    Stage.READY: "admitted",
    Stage.IN: "signed in",
    Stage.LOST: "lost",
}
TIER_COLOURS = {"VIP": "bright_magenta", "PREMIUM": "bright_cyan", "NORMAL": "yellow"}
WIDTH, LABEL, BAR = 80, 14, 50
SPARKS = " ▁▂▃▄▅▆▇█"
DRAW_S = 0.5
RATE_WINDOW_S = 3.0
HISTORY = BAR


class Picture:
    """Draws a crowd again and again. `headline` says what goes on; `opened_at` is in s since the epoch."""

    def __init__(self, crowd: Crowd, rate: float) -> None:
        self._crowd, self._rate = crowd, rate
        self._began_at = time.time()
        self._seen: deque[tuple[float, int]] = deque()
        self._paces: deque[float] = deque(maxlen=HISTORY)
        self.headline = "connect"
        self.opened_at: float | None = None

    async def keep_drawing(self) -> None:
        """Draw. Runs as a task."""
        with Live(console=Console(), auto_refresh=False) as live:
            while True:
                live.update(self._draw(), refresh=True)
                await asyncio.sleep(DRAW_S)

    def _draw(self) -> RenderableType:
        counts, now = self._crowd.counts, time.time()
        total = sum(counts.values())
        rows = [_row(stage, counts[stage], total) for stage in Stage]
        self._note(now, counts[Stage.READY] + counts[Stage.IN])
        return Panel(
            Group(*rows, Text(), *self._tiers(), self._pace(), self._waits(counts, now)),
            title=f"[bold]{total:,} players {self.headline}[/]",
            subtitle=f"{now - self._began_at:.0f} s",
            title_align="left",
            subtitle_align="right",
            box=box.ROUNDED,
            width=WIDTH,
            padding=(0, 2),
            border_style="bright_black",
        )

    def _note(self, now: float, admitted: int) -> None:
        self._seen.append((now, admitted))
        while self._seen[0][0] < now - RATE_WINDOW_S:
            self._seen.popleft()
        first_at, first = self._seen[0]
        self._paces.append((admitted - first) / max(now - first_at, DRAW_S))

    def _tiers(self) -> list[Text]:
        """Who waits, and how long those who were admitted had waited, by tier."""
        tallies = self._crowd.tallies
        means = {tier: tally.waited_s / max(tally.admitted, 1) for tier, tally in tallies.items()}
        return [
            _by_tier("in line", {tier: f"{tally.waiting:,} {tier}" for tier, tally in tallies.items()}),
            _by_tier("mean wait", {tier: f"{tier} {mean_s:.1f} s" for tier, mean_s in means.items()}),
            _by_tier(
                "longest wait", {tier: f"{tier} {tally.longest_s:.1f} s" for tier, tally in tallies.items()}
            ),
        ]

    def _pace(self) -> Text:
        row = Text(f"{'admitted':<{LABEL}}", "bold")
        row.append(f"{self._paces[-1]:,.0f} a second", "bold cyan")
        row.append(f" of {self._rate:,.0f}\n{'':<{LABEL}}")
        full = len(SPARKS) - 1
        row.append(
            "".join(SPARKS[min(full, round(full * pace / self._rate))] for pace in self._paces), "cyan"
        )
        return row

    def _waits(self, counts: dict[Stage, int], now: float) -> Text:
        row = Text(f"{'waits':<{LABEL}}", "bold")
        if self.opened_at is None:
            row.append("not open yet")
        else:
            row.append(f"{now - self.opened_at:.1f} s since the opening, ")
            row.append(f"{counts[Stage.WAITING] / self._rate:.1f} s to go at the rate")
        return row


def _by_tier(label: str, words: Mapping[str, str]) -> Text:
    row = Text(f"{label:<{LABEL}}", "bold")
    for number, (tier, said) in enumerate(words.items()):
        row.append(" · " if number else "").append(said, TIER_COLOURS[tier])
    return row


def _row(stage: Stage, count: int, total: int) -> Text:
    colour, cells = COLOURS[stage], -(-BAR * count // max(total, 1))
    row = Text(f"{NAMES[stage]:<{LABEL}}", "bold" if count else "dim")
    row.append("━" * cells, colour)
    row.append("─" * (BAR - cells), "bright_black dim")
    row.append(f"{count:>9,}", f"bold {colour}" if count else "dim")
    return row
