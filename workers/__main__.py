"""`python -m workers KIND`: one worker process."""

import argparse
import importlib
from collections.abc import Callable

from runtime.arguments import configuration, parser
from runtime.config import ConfigError
from runtime.daemon import main
from workers.process import Kind, WorkerProcess

KINDS = {
    "login": "workers.login.room",
    "matching": "workers.matching.room",
    "operations": "workers.operations.room",
    "ranking": "workers.ranking.room",
    "portal": "workers.portal.room",
    "status": "workers.status.manager",
}
"""The module of each kind that puts its process together. A kind is imported only when it runs."""


def named(text: str) -> tuple[str, str]:
    """A kind of worker, and its number where one is given. Raises argparse.ArgumentTypeError."""
    kind, _, number = text.partition("-")
    if kind not in KINDS or (number and not number.isdecimal()) or text.endswith("-"):
        raise argparse.ArgumentTypeError(
            f"expected KIND or KIND-N, with KIND one of {', '.join(sorted(KINDS))}"
        )
    return kind, number


async def run() -> int:
    """Read the arguments and live. Raises ConfigError."""
    arguments = parser("workers", "A worker of lobbyd.")
    arguments.add_argument(
        "kind",
        metavar="KIND[-N]",
        type=named,
        help=f"what this worker does ({', '.join(sorted(KINDS))}), and its number (default: the first free)",
    )
    given = arguments.parse_args()
    kind, number = given.kind
    process_id = f"{kind}-{number}" if number else ""
    config = configuration(given)
    if not config.redis.url:
        raise ConfigError("redis.url: a worker started alone needs a Redis; `lobbyctl up` embeds one")
    assemble: Callable[[WorkerProcess], Kind] = importlib.import_module(KINDS[kind]).assemble
    return await WorkerProcess(config, kind, process_id).run(assemble)


if __name__ == "__main__":
    main(run)
