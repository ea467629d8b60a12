"""Matching: how fast opponents are found, without sockets and through them, beside the pure pairing.

    python -m bench.matching                     bursts and a steady stream, in process and through sockets
    python -m bench.matching --evening FILE.svg  a simulated evening, drawn: who waited how long, and for whom

In bursts and in the steady stream players fit in pairs: whoever comes has one opponent of the same
difficulty, level and region, who comes at the same time or just before. What is measured is what lobbyd adds
to that. In the spread they come as they do, and the default search finds whom it can: how long that takes,
and how well they fit.
"""

import argparse
from pathlib import Path

from bench import harness, matching_evening
from bench.harness import Goal, Result, at_least, at_most
from bench.matching_crowd import USUAL, crowd, pure_pairing_s
from bench.matching_floor import Floor
from bench.matching_sockets import through_sockets

BURSTS = (1_000, 5_000, 10_000, 50_000)
BESIDE = (0, 1_000, 10_000, 50_000)
RATE = 1_000
STEADY_S = 5.0
SPREAD_RATES = (50, 200, 1_000)
SPREAD_S = 10.0
PATIENCE_S = 15.0
"""After the last has come: by then the search is as wide as it gets."""

TIME_LIMIT_S = 400.0


async def measure(workers: int, *, with_sockets: bool) -> Result:
    """Run the benchmark with so many matching workers."""
    machine = harness.machine()
    figures: dict[str, float] = {}
    async with Floor.open(workers) as floor:
        for count in BURSTS:
            players = crowd(count)
            figures[f"pure_pairing_{count}_ms"] = 1000 * pure_pairing_s(players)
            figures |= await floor.burst(players)
        for waiting in BESIDE:
            figures |= await floor.steady(RATE, STEADY_S, waiting)
    async with Floor.open(workers, USUAL) as floor:
        for rate in SPREAD_RATES:
            figures |= await floor.spread(rate, SPREAD_S, PATIENCE_S)
    if with_sockets:
        figures |= await through_sockets(workers, RATE, STEADY_S)
    return Result(
        "matching",
        {name: harness.rounded(value) for name, value in figures.items()},
        _goals(figures),
        machine,
    )


def _goals(figures: dict[str, float]) -> list[Goal]:
    small, large = BURSTS[0], BURSTS[-1]
    goals = [
        at_least("share of a burst of 5,000 that was matched", figures["burst_5000_matched_ratio"], 1.0),
        at_most("burst of 5,000, in process: all matched after", figures["burst_5000_all_s"], 1.0),
        at_most(
            f"cost of a player, {large:,} beside {small:,} at once",
            figures[f"burst_{large}_each_us"] / figures[f"burst_{small}_each_us"],
            1.67,  # log 50,000 / log 1,000, and a little for the clock
        ),
        at_most("1,000 a second, in process: p99", figures["steady_0_p99_ms"], 250),
    ]
    if "sockets_idle_p50_ms" in figures:
        goals += [
            at_most("a pair through sockets, idle: p50 to MATCH_FOUND", figures["sockets_idle_p50_ms"], 5),
            at_least(
                "share of a burst of 5,000 through sockets", figures["sockets_burst_matched_ratio"], 1.0
            ),
            at_most("burst of 5,000 through sockets: all matched after", figures["sockets_burst_all_s"], 1.0),
            at_most("1,000 a second through sockets: p99", figures["sockets_steady_p99_ms"], 250),
            at_least("share of those that was matched", figures["sockets_steady_matched_ratio"], 1.0),
        ]
    return goals


def _arguments() -> argparse.Namespace:
    parser = harness.arguments("matching", "How fast opponents are found.")
    parser.add_argument("--workers", type=int, default=1, help="matching workers (default: 1)")
    parser.add_argument("--no-sockets", action="store_true", help="only what is measured in process")
    parser.add_argument("--evening", type=Path, metavar="FILE.svg", help="simulate an evening and draw it")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    if given.evening is not None:
        harness.main(
            lambda: matching_evening.measure(given.evening), as_json=given.json, time_limit_s=TIME_LIMIT_S
        )
    harness.main(
        lambda: measure(given.workers, with_sockets=not given.no_sockets),
        as_json=given.json,
        time_limit_s=TIME_LIMIT_S,
    )
