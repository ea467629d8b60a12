"""Clients of Redis. Retries are off: what is not idempotent must not be sent twice behind our back."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runtime.config import ConfigError
from storage.wire import Wire

ANSWER_TIMEOUT_S = 0.9
"""A command without an answer for this long means that Redis is away. Two in a row must fit into the
2 s within which a client is told BUSY (architecture.md, "What is promised")."""

MOST_CONNECTIONS = 32
"""Commands of one process that can be under way at once; a further one waits for its turn."""


_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_IN_URL = ("db", "username", "password", *_TLS_FILES)
"""What a URL may say in its query. redis-py lets it overrule all else: time limits, retries, the protocol."""


def connect(url: str) -> Redis:
    """A client for all else. Raises redis' ConnectionError and TimeoutError when used.

    `rediss://` is TLS; a server's certificate is verified always, and with `?ssl_ca_certs=FILE` against that
    authority. Raises ConfigError where the URL asks for another thing, as do the other two.
    """
    pool = BlockingConnectionPool.from_url(
        _checked(url),
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
    return Wire(_checked(url), ANSWER_TIMEOUT_S)


def connect_blocking(url: str, block_s: float) -> Wire:
    """A connection for reads that block for up to `block_s` seconds: its own, with a longer time limit."""
    return Wire(_checked(url), block_s + ANSWER_TIMEOUT_S)


def _checked(url: str) -> str:
    """The URL, once it is seen that what it says can be done."""
    for name, (value, *_) in parse_qs(urlsplit(url).query).items():
        if name in _TLS_FILES:
            _check_file(name, Path(value))
        elif name not in _IN_URL:
            raise ConfigError(f"redis.url: {name}: expected one of {', '.join(_IN_URL)}")
    return url


def _check_file(name: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"redis.url: {name}: {path}: cannot be read: {error.strerror}") from None
