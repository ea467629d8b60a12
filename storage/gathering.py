"""Looking up together all that is asked for in one turn of the loop: one round trip instead of hundreds."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Set
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Gathering(Generic[K, T]):
    """Answers questions by name, in batches. `look_up` gets the names of a batch and finds what there is.

    A name is whatever tells one question from another. Those of a batch come in the order of asking.
    """

    def __init__(self, look_up: Callable[[Set[K]], Awaitable[Mapping[K, T]]]) -> None:
        self._look_up = look_up
        self._wanted: dict[K, asyncio.Future[T | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, name: K) -> T | None:
        """What `look_up` finds for `name`, else None. Raises what `look_up` raises, to all of a batch."""
        if not self._wanted:
            asyncio.get_running_loop().call_soon(self._begin)
        answer = self._wanted.setdefault(name, asyncio.get_running_loop().create_future())
        return await asyncio.shield(answer)  # others may wait for the same

    def _begin(self) -> None:
        wanted, self._wanted = self._wanted, {}
        task = asyncio.create_task(self._answer(wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, wanted: dict[K, asyncio.Future[T | None]]) -> None:
        try:
            found = await self._look_up(wanted.keys())
        except Exception as error:  # it is the askers' to handle, whatever it is
            for answer in wanted.values():
                answer.set_exception(error)
            return
        for name, answer in wanted.items():
            answer.set_result(found.get(name))
