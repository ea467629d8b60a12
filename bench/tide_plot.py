"""The tide as a drawing in plain SVG: what was asked, the load of the workers, and how many there were."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.rush_plot import (
    COLOURS,
    GAP,
    LEFT,
    PANEL_HEIGHT,
    RATE_COLOUR,
    TICKS,
    WIDTH,
    Panel,
    Points,
    svg_text,
)

if TYPE_CHECKING:
    from bench.tide import Tide

LIMITS = (80, 60, 30)
SMOOTH_S = 2.0


def draw(tide: "Tide", shape: Points) -> str:
    """The drawing as SVG."""
    end_s = shape[-1][0]
    panels = [_asked(tide, shape, end_s), _load(tide, end_s), _workers(tide, end_s)]
    height = 60 + len(panels) * (PANEL_HEIGHT + GAP)
    title = f"{tide.asked:,} accounts asked for, {len(tide.took_s):,} answered, {tide.accounts:,} made"
    parts = [
        svg_text(LEFT, 26, title, size=18, weight="bold"),
        *(part for panel in panels for part in panel.parts),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _asked(tide: "Tide", shape: Points, end_s: float) -> Panel:
    answered: list[tuple[float, float]] = []
    first = tide.looks[0]
    for look in tide.looks:
        if look.at_s - first.at_s >= SMOOTH_S:
            answered.append((look.at_s, (look.answered - first.answered) / (look.at_s - first.at_s)))
            first = look
    panel = Panel(0, "accounts a second", (0, end_s), max(each for _, each in (*shape, *answered)))
    panel.line(shape, COLOURS[0])
    panel.line(answered, COLOURS[3])
    panel.legend([("asked for", COLOURS[0]), ("answered", COLOURS[3])])
    return panel


def _load(tide: "Tide", end_s: float) -> Panel:
    loads = [(look.at_s, 100 * look.load) for look in tide.looks]
    panel = Panel(
        1, "load ratio of the login workers, in %", (0, end_s), max(100, *(each for _, each in loads))
    )
    for limit in LIMITS:
        panel.line([(0, limit), (end_s, limit)], RATE_COLOUR)
    panel.line(_steps(loads), COLOURS[1])
    panel.legend([("load", COLOURS[1]), ("80, 60, 30 %", RATE_COLOUR)])
    return panel


def _workers(tide: "Tide", end_s: float) -> Panel:
    most = max(max(look.workers, look.wanted) for look in tide.looks)
    panel = Panel(2, "login workers", (0, end_s), TICKS * math.ceil(most / TICKS))
    panel.line(_steps([(look.at_s, look.wanted) for look in tide.looks]), COLOURS[2])
    panel.line(_steps([(look.at_s, look.workers) for look in tide.looks]), COLOURS[0])
    panel.legend([("wanted", COLOURS[2]), ("READY", COLOURS[0])])
    return panel


def _steps(points: Sequence[tuple[float, float]]) -> Points:
    """The corners of a line that keeps each value until the next one."""
    found = list(points[:1])
    for (_, y0), (x1, y1) in pairwise(points):
        if y0 != y1:
            found += [(x1, y0), (x1, y1)]
    return [*found, points[-1]]
