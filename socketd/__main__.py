"""`python -m socketd`: one socket node."""

from runtime import logging
from runtime.arguments import configuration, parser
from runtime.config import ConfigError
from runtime.daemon import main
from socketd.node import Node


async def run() -> int:
    """Read the arguments and live. Raises ConfigError."""
    arguments = parser("socketd", "A socket node of lobbyd.")
    arguments.add_argument("--server-id", metavar="ID", help="this node's name, such as SOCK001")
    given = arguments.parse_args()
    named = [f"socketd.server_id={given.server_id}"] if given.server_id else []
    config = configuration(given, named)
    logging.configure(config.log.level, config.log.format, config.socketd.server_id)
    if not config.redis.url:
        raise ConfigError("redis.url: a node started alone needs a Redis; `lobbyctl up` embeds one")
    return await Node(config).run()


if __name__ == "__main__":
    main(run)
