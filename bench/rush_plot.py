"""The rush as a drawing in plain SVG: who waits over time, admissions beside the rate, and the waits."""

import math
from collections import Counter

from bench.drawing import COLOURS, RATE_COLOUR, Panel, Points, page
from bench.rush_figures import Rush, waiting

BUCKETS = 40
CURVE_STEP_MS = 250


def draw(rush: Rush) -> str:
    """The drawing as SVG."""
    title = f"{rush.players:,} players at {rush.rate:,.0f} a second"
    return page(title, [_waiting(rush), _rate(rush), _waits(rush)])


def _waiting(rush: Rush) -> Panel:
    curve = waiting(rush, CURVE_STEP_MS)
    panel = Panel(0, "waiting, by seconds since the opening", _span(curve), max(count for _, count in curve))
    panel.line(curve, COLOURS[0])
    return panel


def _rate(rush: Rush) -> Panel:
    span = _span(waiting(rush, CURVE_STEP_MS))
    seconds = Counter(int(ticket.ready_ms / 1000 - rush.opened_at) for ticket in rush.admitted)
    bars = sorted(seconds.items())
    panel = Panel(1, "admitted in each second", span, 1.2 * max(rush.rate, *seconds.values()))
    panel.bars(bars, 1, COLOURS[0])
    panel.line([(max(span[0], 0), rush.rate), (span[1], rush.rate)], RATE_COLOUR)
    panel.legend([("the rate set", RATE_COLOUR)])
    return panel


def _waits(rush: Rush) -> Panel:
    """A histogram of waits by tier."""
    waits: dict[str, list[float]] = {}
    for ticket in rush.admitted:
        waits.setdefault(ticket.tier, []).append(rush.wait_s(ticket))
    longest = max(max(each) for each in waits.values()) or 1.0
    width = longest / BUCKETS
    counted = {
        tier: Counter(min(int(wait / width), BUCKETS - 1) for wait in waits[tier]) for tier in sorted(waits)
    }
    most = max(max(counts.values()) for counts in counted.values())
    panel = Panel(2, "players by how long they waited since the opening", (0, longest), most)
    colours = dict(zip(counted, COLOURS, strict=False))
    for tier, counts in counted.items():
        panel.bars(
            [(bucket * width, count) for bucket, count in sorted(counts.items())], width, colours[tier]
        )
    panel.legend(list(colours.items()))
    return panel


def _span(curve: Points) -> tuple[float, float]:
    return float(math.floor(curve[0][0])), curve[-1][0]
