"""The tide as a drawing in plain SVG: what was asked, the load of the workers, and how many there were."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.drawing import COLOURS, RATE_COLOUR, TICKS, Panel, Points, page

if TYPE_CHECKING:
    from bench.tide import Tide

LIMITS = (80, 60, 30)
SMOOTH_S = 2.0


def draw(tide: "Tide", shape: Points) -> str:
    """The drawing as SVG."""
    end_s = shape[-1][0]
    title = f"{tide.asked:,} accounts asked for, {len(tide.took_s):,} answered, {tide.accounts:,} made"
    return page(title, [_asked(tide, shape, end_s), _load(tide, end_s), _workers(tide, end_s)])


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
