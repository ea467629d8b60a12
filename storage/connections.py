"""Clients of Redis. Retries are off: what is not idempotent must not be sent twice behind our back."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

ANSWER_TIMEOUT_S = 0.9
"""A command without an answer for this long means that Redis is away. Two in a row must fit into the
2 s within which a client is told BUSY (architecture.md, "What is promised")."""

MOST_CONNECTIONS = 32
"""Commands of one process that can be under way at once; a further one waits for its turn."""


def connect(url: str) -> Redis:
    """A client for commands that answer at once. Raises redis' ConnectionError and TimeoutError when used."""
    return _client(url, ANSWER_TIMEOUT_S)


def connect_blocking(url: str, block_s: float) -> Redis:
    """A client for reads that block for up to `block_s` seconds: its own, with a longer time limit."""
    return _client(url, block_s + ANSWER_TIMEOUT_S)


def _client(url: str, timeout_s: float) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=ANSWER_TIMEOUT_S,
        protocol=2,
        decode_responses=False,
        socket_timeout=timeout_s,
        socket_connect_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    client = Redis.from_pool(pool)
    # The lists as Redis sends them: turning thousands of entries into tuples costs more than reading them.
    client.set_response_callback("XREADGROUP", lambda response, **_: response)
    return client
