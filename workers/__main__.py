"""`python -m workers KIND`: one worker process."""

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


async def run() -> int:
    """Read the arguments and live. Raises ConfigError."""
    arguments = parser("workers", "A worker of lobbyd.")
    arguments.add_argument("kind", choices=sorted(KINDS), help="what this worker does")
    arguments.add_argument(
        "--process-id", metavar="ID", help="this process's name (default: the first free KIND-N)"
    )
    given = arguments.parse_args()
    config = configuration(given)
    if not config.redis.url:
        raise ConfigError("redis.url: a worker started alone needs a Redis; `lobbyctl up` embeds one")
    assemble: Callable[[WorkerProcess], Kind] = importlib.import_module(KINDS[given.kind]).assemble
    return await WorkerProcess(config, given.kind, given.process_id or "").run(assemble)


if __name__ == "__main__":
    main(run)
