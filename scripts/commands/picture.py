"""The demo's crowd, drawn: as a picture for terminals of 80 columns and more, as a line for anything else."""

from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.commands.crowd import Crowd, State, Tier

COLOURS = {
    State.OUTSIDE: "bright_black",
    State.HASHING: "magenta",
    State.WAITING: "yellow",
    State.ADMITTED: "cyan",
    State.IN: "green",
    State.LOST: "red",
}
TIER_COLOURS = {Tier.VIP: "bright_magenta", Tier.PREMIUM: "bright_cyan", Tier.NORMAL: "yellow"}
WIDTH = 80
INSIDE = WIDTH - 6
LABEL = 14
BAR = INSIDE - LABEL - 6
SPARKS = " ▁▂▃▄▅▆▇█"
SPARK_SECONDS = 30
NEXT = 4


def picture(crowd: Crowd) -> RenderableType:
    """The crowd as it is now."""
    counts = crowd.counts
    states = [state for state in State if state is not State.LOST or counts[state]]
    rows = [_bar(state, counts[state], len(crowd.guests)) for state in states]
    events = [Text(event, style="dim", no_wrap=True, overflow="ellipsis") for event in crowd.events]
    parts = [
        _everybody(crowd),
        Text(),
        *rows,
        *_causes(crowd),
        Text(),
        _tiers(crowd),
        _rate(crowd),
        _waits(crowd),
        _waits_by_tier(crowd),
        _next(crowd),
        Text(),
        *events,
    ]
    title = f"[bold]{len(crowd.guests)} players {crowd.act.value}[/]"
    return Panel(
        Group(*parts),
        title=title,
        subtitle=f"{crowd.now_s:.0f} s",
        title_align="left",
        subtitle_align="right",
        box=box.ROUNDED,
        width=WIDTH,
        padding=(0, 2),
        border_style="bright_black",
    )


def line(crowd: Crowd) -> str:
    """The crowd in one line of text."""
    counts = crowd.counts
    places = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    pace = f"{crowd.admitted_per_s:.1f} of {crowd.rate_per_s:.1f} admitted a second"
    waited = f"average wait {_seconds(crowd.average_wait_s)}"
    tiers = ", ".join(f"{count} {tier.value}" for tier in Tier if (count := crowd.waiting[tier]))
    in_line = f"in line {tiers}; " if tiers else ""
    causes = "".join(f"; turned away: {_cause(crowd, cause)}" for cause, _ in crowd.causes.most_common(1))
    return f"players {crowd.act.value}, {crowd.now_s:.0f} s: {places}; {in_line}{pace}; {waited}{causes}"


def summary(crowd: Crowd) -> RenderableType:
    """How it went."""
    counts = crowd.counts
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("players signed in", f"{counts[State.IN]} of {len(crowd.guests)}")
    if counts[State.LOST]:
        table.add_row("turned away", str(counts[State.LOST]), style="red")
    for cause, count in crowd.causes.most_common():
        table.add_row(f"  {cause}", str(count), style="red")
    for act, took_s in crowd.took_s.items():
        table.add_row(f"all {act.value}", f"{took_s:.1f} s")
    table.add_row("most in the waiting room", str(crowd.most_waiting))
    table.add_row("wait there, average", _seconds(crowd.average_wait_s))
    table.add_row("wait there, longest", _seconds(max(crowd.waits, default=None)))
    for tier, waits in crowd.waits_of.items():
        table.add_row(f"wait of {tier.value} players, average", _seconds(_mean(waits)))
    pace = crowd.overall_admitted_per_s
    told = "too few to tell" if pace is None else f"{pace:.1f} of {crowd.rate_per_s:.1f}"
    table.add_row("admitted a second", told)
    return table


def _everybody(crowd: Crowd) -> Text:
    """One bar of all players, coloured by where they are."""
    counts, total = crowd.counts, len(crowd.guests)
    bar, filled, seen = Text(), 0, 0
    for state in reversed(State):
        seen += counts[state]
        until = round(INSIDE * seen / total)
        bar.append("█" * (until - filled), COLOURS[state])
        filled = until
    return bar


def _bar(state: State, count: int, total: int) -> Text:
    colour = COLOURS[state]
    cells = -(-BAR * count // total)
    row = Text(f"{state.value:<{LABEL}}", "bold" if count else "dim")
    row.append("━" * cells, colour)
    row.append("─" * (BAR - cells), "bright_black dim")
    row.append(f"{count:>6}", f"bold {colour}" if count else "dim")
    return row


def _causes(crowd: Crowd) -> list[Text]:
    """Why players were turned away, if any were: what happened most."""
    return [
        Text(f"{'':<{LABEL}}{_cause(crowd, cause)}", "red", no_wrap=True, overflow="ellipsis")
        for cause, _ in crowd.causes.most_common(1)
    ]


def _cause(crowd: Crowd, cause: str) -> str:
    return f"{crowd.causes[cause]} × {cause}"


def _tiers(crowd: Crowd) -> Text:
    """Who waits, by tier."""
    row, waiting = Text(f"{'in line':<{LABEL}}", "bold"), crowd.waiting
    for number, tier in enumerate(Tier):
        row.append(" · " if number else "")
        row.append(f"{waiting[tier]} {tier.value}", f"bold {TIER_COLOURS[tier]}" if waiting[tier] else "dim")
    return row


def _waits_by_tier(crowd: Crowd) -> Text:
    row = Text(f"{'by tier':<{LABEL}}", "bold")
    for number, tier in enumerate(Tier):
        row.append(" · " if number else "")
        row.append(f"{tier.value} {_seconds(_mean(crowd.waits_of[tier]))}", TIER_COLOURS[tier])
    return row


def _rate(crowd: Crowd) -> Text:
    row = Text(f"{'admitted':<{LABEL}}", "bold")
    row.append(f"{crowd.admitted_per_s:.1f} a second", "bold cyan")
    row.append(f" of {crowd.rate_per_s:.1f}  ")
    row.append(_sparks(crowd), "cyan")
    return row


def _sparks(crowd: Crowd) -> str:
    """One character for each of the last seconds, full at the rate."""
    return "".join(
        SPARKS[min(len(SPARKS) - 1, -(-(len(SPARKS) - 1) * count // max(1, round(crowd.rate_per_s))))]
        for count in crowd.admitted_in_each_second(SPARK_SECONDS)
    )


def _waits(crowd: Crowd) -> Text:
    row = Text(f"{'wait so far':<{LABEL}}", "bold")
    row.append(
        f"{_seconds(crowd.average_wait_s)} on average, {_seconds(max(crowd.waits, default=None))} at most"
    )
    return row


def _next(crowd: Crowd) -> Text:
    row = Text(f"{'next in line':<{LABEL}}", "bold", no_wrap=True, overflow="ellipsis")
    row.append(" · ".join(crowd.next_in_line(NEXT)) or "–", "yellow")
    return row


def _mean(waits: Sequence[float]) -> float | None:
    return fmean(waits) if waits else None


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f} s"
