"""What every store can raise, whichever it is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions


class StoreAway(Exception):
    """A store (Redis or the database) cannot be reached.

    Either nothing was done, or the outcome is unknown and must be asked for again: a caller answers
    503 BUSY, and the client repeats its request with the same idempotency key.
    """


_REDIS_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.ClusterDownError,
    exceptions.OutOfMemoryError,
    OSError,
)

_IN_PIPELINE = r"Command # .* of pipeline caused error: \(['\"]"
"""What redis-py puts before the words of Redis."""

_NOT_NOW = re.compile(rf"({_IN_PIPELINE})?(MISCONF|NOREPLICAS|BUSY) ", re.DOTALL)
"""How Redis begins to refuse what it would take at another time: no disk, no replicas, a script running."""

_LOST_AT_ONCE = "the handler is closed"
"""In uvloop's RuntimeError where redis-py writes to a connection that was lost as soon as it was made."""


@contextmanager
def redis_away_is_store_away() -> Iterator[None]:
    """Raise StoreAway in place of what redis-py raises when no Redis can be reached that takes work."""
    try:
        yield
    except _REDIS_AWAY as error:
        raise StoreAway(f"Redis cannot be reached: {error}") from error
    except exceptions.ResponseError as error:
        if _NOT_NOW.match(str(error)) is None:
            raise
        raise StoreAway(f"Redis takes no work now: {error}") from error
    except RuntimeError as error:
        if _LOST_AT_ONCE not in str(error):
            raise
        raise StoreAway(f"Redis cannot be reached: {error}") from error
