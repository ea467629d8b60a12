"""Clients of Redis. Retries are off: what is not idempotent must not be sent twice behind our back."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from storage.wire import Wire

ANSWER_TIMEOUT_S = 0.9
"""A command without an answer for this long means that Redis is away. Two in a row must fit into the
2 s within which a client is told BUSY (architecture.md, "What is promised")."""

MOST_CONNECTIONS = 32
"""Commands of one process that can be under way at once; a further one waits for its turn."""


def connect(url: str) -> Redis:
    """A client for all else. Raises redis' ConnectionError and TimeoutError when used."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=ANSWER_TIMEOUT_S,
        protocol=2,
        decode_responses=False,
        socket_timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def connect_wire(url: str) -> Wire:
    """The connection for what is hot. Raises redis' ConnectionError and TimeoutError when used."""
    return Wire(url, ANSWER_TIMEOUT_S)


def connect_blocking(url: str, block_s: float) -> Wire:
    """A connection for reads that block for up to `block_s` seconds: its own, with a longer time limit."""
    return Wire(url, block_s + ANSWER_TIMEOUT_S)
