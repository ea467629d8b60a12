"""Redis Functions: every change that must be atomic is one, in the `.lua` files beside this one.

A library's name and its functions' names end in a hash of its text, so that two releases can work
on one Redis side by side during a rolling upgrade, and neither can call the other's code.
"""

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.exceptions import ResponseError

from storage.errors import redis_away_is_store_away
from storage.wire import Argument, Command, Executor

MOST_LOADS = 3
"""How often one call puts its library back: a Redis that fails over may lose it again meanwhile."""


class Library:
    """Some `.lua` files as one text, loaded when it is first called and again after a Redis has lost it."""

    def __init__(self, *nouns: str) -> None:
        folder = resources.files(__package__)
        text = "\n".join(folder.joinpath(f"{noun}.lua").read_text("utf-8") for noun in nouns)
        self._version = hashlib.sha256(text.encode()).hexdigest()[:8]
        self._text = text.replace("@VERSION@", self._version)

    def command(self, function: str, keys: Sequence[str], args: Sequence[Argument] = ()) -> Command:
        """The Redis command that calls `function`."""
        return ("FCALL", f"{function}_{self._version}", len(keys), *keys, *args)

    async def load(self, redis: Executor) -> None:
        """Put the library into Redis unless it is there."""
        try:
            await redis.execute_command("FUNCTION", "LOAD", self._text)
        except ResponseError as error:
            if "already exists" not in str(error):
                raise

    async def call(
        self, redis: Executor, function: str, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """Call `function`. Raises ResponseError when it refuses, StoreAway when Redis is away."""
        command = self.command(function, keys, args)
        with redis_away_is_store_away():
            for _ in range(MOST_LOADS):
                try:
                    return await redis.execute_command(*command)
                except ResponseError as error:
                    if not is_missing(error):
                        raise
                    await self.load(redis)
            return await redis.execute_command(*command)


def is_missing(error: Exception) -> bool:
    """Whether Redis does not have the function, so that nothing was done and loading helps."""
    return isinstance(error, ResponseError) and "Function not found" in str(error)
