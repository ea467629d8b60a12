"""Scores and boards with a million players on them: submissions, their lag, reads, memory and rebuilding.

The processing of accepted scores takes turns with its bare limit (`bench.ranking_stage`). Then players over
real sockets submit, each time a better score, so that every board changes each time: as fast as they are
answered, and at a steady 80% of that, for the lag from a score's answer to the event that says it is on the
boards. Then they read.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from bench import harness
from bench.harness import Result, at_least, at_most, quantile, rounded
from bench.hops import Hops
from bench.ranking_data import MOST, Filled, fill
from bench.ranking_load import Meter, Player, closed_loop, paced, sign_in
from bench.ranking_spread import loaded_ms, quiet_ms, watched
from bench.ranking_stage import bare_per_s, processed_per_s
from bench.system import Settings, System, running_system
from protocol.messages import Message
from protocol.messages.ranking import BoardType, GetRankings, SubmitScore
from storage.migrations import migrate

TIME_LIMIT_S = 900.0
LOAD_SHARE = 0.8
PEER_CONNECTIONS = 16
"""As many as the well-known Go game server was measured with that read 2,000 tops a second."""

SETTINGS: Settings = {
    "ranking.score_ceilings": "{ suika = 1_000_000_000 }",
    "ranking.submit_max_size": 1_000_000,
    "socketd.queue_max_size": 1_000_000,
}


@dataclass(frozen=True)
class Options:
    """How much to measure, and on what."""

    players: int
    workers: int
    nodes: int
    connections: int
    scores: int
    rounds: int
    seconds: float
    with_mariadb: bool


async def measure(options: Options) -> Result:
    """Run the benchmark."""
    machine = harness.machine()
    harness.allow_files(2 * options.connections + harness.SPARE_FILES)
    async with running_system(SETTINGS, options.nodes, with_mariadb=options.with_mariadb) as system:
        await migrate(system.database_url)
        filled = await fill(system.database_url, system.redis_url, options.players)
        for number in range(1, options.workers + 1):
            await system.start_worker("ranking", number)
        ours, limit = await _stages(system, options)
        meter = Meter()
        players = await sign_in(system, options.connections, meter)
        figures = _of_filled(filled, options) | _of_stages(ours, limit)
        figures |= await _submissions(system, players, meter, options)
        figures |= await _reads(system, players, meter, options)
    return Result("ranking", figures, _goals(figures), machine)


async def _stages(system: System, options: Options) -> tuple[list[float], list[float]]:
    ours, limit = [], []
    for number in range(options.rounds):
        ours.append(await processed_per_s(system, options.scores, options.players, 2 * number))
        seed = 1000 + number * options.workers
        limit.append(await bare_per_s(system, options.workers, options.scores, options.players, seed))
    return ours, limit


def _better(chance: random.Random) -> Callable[[], Message]:
    """Scores of which each is better than all before, of whoever asks."""
    score = MOST

    def make() -> Message:
        nonlocal score
        score += chance.randint(1, 9)
        return SubmitScore(score=score, game_type="suika", difficulty="medium")

    return make


async def _submissions(
    system: System, players: list[Player], meter: Meter, options: Options
) -> dict[str, float]:
    make = _better(random.Random(1))
    hops, asked = Hops(system), sum(player.asked for player in players)
    per_s = await closed_loop(players, make, options.seconds, under_way=4)
    figures = {**hops.each_us("submission", sum(player.asked for player in players) - asked)}
    figures |= await quiet_ms(system, players, meter, make)
    async with watched(system, players) as watch:
        await paced(players, make, LOAD_SHARE * per_s, options.seconds)
        figures |= loaded_ms(watch, meter)
    return {
        **figures,
        "submissions_per_s": rounded(per_s),
        "submit_at_load_p50_ms": rounded(quantile(meter.took_s, 0.5) * 1000),
        "submit_at_load_p99_ms": rounded(quantile(meter.took_s, 0.99) * 1000),
        "lag_at_load_p50_ms": rounded(quantile(meter.lag_s, 0.5) * 1000),
        "lag_at_load_p99_ms": rounded(quantile(meter.lag_s, 0.99) * 1000),
        "submit_to_update_at_load_p50_ms": rounded(quantile(meter.heard_s, 0.5) * 1000),
        "submit_to_update_at_load_p99_ms": rounded(quantile(meter.heard_s, 0.99) * 1000),
        "lags": len(meter.lag_s),
        "refused": meter.refused,
    }


def _same(message: Message) -> Message:
    return message


async def _reads(system: System, players: list[Player], meter: Meter, options: Options) -> dict[str, float]:
    questions = {
        "top": GetRankings(type=BoardType.TOTAL),
        "around": GetRankings(type=BoardType.TOTAL, around=True, limit=11),
    }
    figures: dict[str, float] = {}
    for name, message in questions.items():
        for count in (PEER_CONNECTIONS, len(players)):
            hops, asked = Hops(system), sum(player.asked for player in players)
            per_s = await closed_loop(players[:count], partial(_same, message), options.seconds)
            figures |= hops.each_us(f"{name}_{count}", sum(player.asked for player in players) - asked)
            figures[f"{name}_{count}_connections_per_s"] = rounded(per_s)
            figures[f"{name}_{count}_connections_p50_ms"] = rounded(quantile(meter.took_s, 0.5) * 1000)
            figures[f"{name}_{count}_connections_p99_ms"] = rounded(quantile(meter.took_s, 0.99) * 1000)
    return figures


def _of_filled(filled: Filled, options: Options) -> dict[str, float]:
    return {
        "players": options.players,
        "rebuild_s": rounded(filled.rebuild_s),
        "four_boards_mb": rounded(filled.four_boards_bytes / 1e6),
        "all_eight_boards_mb": rounded(filled.all_bytes / 1e6),
    }


def _of_stages(ours: Sequence[float], limit: Sequence[float]) -> dict[str, float]:
    return {
        "processed_per_s": rounded(median(ours)),
        "bare_per_s": rounded(median(limit)),
        "processed_ratio": rounded(median(ours) / median(limit)),
    }


def _goals(figures: dict[str, float]) -> list[harness.Goal]:
    return [
        at_least("scores processed a second beside the bare limit", figures["processed_ratio"], 0.5),
        at_most(
            "ms from a score's answer to its board (p99) at 80% load", figures["lag_at_load_p99_ms"], 1000
        ),
        at_most("MB of Redis for four boards", figures["four_boards_mb"], 700),
        at_most("s to make the boards again", figures["rebuild_s"], 60),
        at_most("submissions refused", figures["refused"], 0),
    ]


if __name__ == "__main__":
    parser = harness.arguments("ranking", "Submissions, their lag, reads, memory and rebuilding of boards.")
    parser.add_argument("--players", type=int, default=1_000_000, help="on the boards (default: 1,000,000)")
    parser.add_argument("--workers", type=int, default=2, help="ranking workers (default: 2)")
    parser.add_argument("--nodes", type=int, default=1, help="socket nodes (default: 1)")
    parser.add_argument("--connections", type=int, default=200, help="of players who ask (default: 200)")
    parser.add_argument("--scores", type=int, default=40_000, help="processed in a round (default: 40,000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of processing (default: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load (default: 5)")
    parser.add_argument("--mariadb", action="store_true", help="on a MariaDB of its own, not SQLite")
    given = parser.parse_args()
    chosen = Options(
        given.players, given.workers, given.nodes, given.connections, given.scores, given.rounds,
        given.seconds, given.mariadb,
    )  # fmt: skip
    harness.main(lambda: measure(chosen), as_json=given.json, time_limit_s=TIME_LIMIT_S)
