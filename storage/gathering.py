"""Looking up together all that is asked for in one turn of the loop: one round trip instead of hundreds."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Set
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Gathering(Generic[K, T]):
    """Answers questions by name, in batches. `look_up` gets the names of a batch and finds what there is.

    A name is whatever tells one question from another. Those of a batch come in the order of asking.
    """

    def __init__(self, look_up: Callable[[Set[K]], Awaitable[Mapping[K, T]]]) -> None:
        self._look_up = look_up
        self._wanted: dict[K, list[asyncio.Future[T | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, name: K) -> T | None:
        """What `look_up` finds for `name`, else None. Raises what `look_up` raises, to all of a batch."""
        loop = asyncio.get_running_loop()
        if not self._wanted:
            task = loop.create_task(self._answer())  # it begins in the next turn
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # Its own: others who wait for the same may be cancelled.
        answer: asyncio.Future[T | None] = loop.create_future()
        self._wanted.setdefault(name, []).append(answer)
        return await answer

    async def _answer(self) -> None:
        wanted, self._wanted = self._wanted, {}
        try:
            found = await self._look_up(wanted.keys())
        except Exception as error:  # it is the askers' to handle, whatever it is
            for answer in _waiting(*wanted.values()):
                answer.set_exception(error)
            return
        for name, answers in wanted.items():
            for answer in _waiting(answers):
                answer.set_result(found.get(name))


def _waiting(*answers: list[asyncio.Future[T | None]]) -> Iterator[asyncio.Future[T | None]]:
    """Those of the answers whose asker was not cancelled."""
    return (answer for some in answers for answer in some if not answer.done())
