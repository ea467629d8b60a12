"""What a kind of task is: its name, its input, its limits and what is done."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

R = TypeVar("R")
I = TypeVar("I", bound=msgspec.Struct)  # noqa: E741 - the input's type


class Refused(Exception):
    """The task cannot be done, now or later: its text tells its user why. It is not tried again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What tasks of a kind may take.

    `concurrency` is how many a worker does at once, `time_limit_s` how long one may last. One that fails is
    tried again up to `retries` times, after `backoff_s` and each time twice as long, half of it by chance.
    """

    concurrency: int
    time_limit_s: float
    retries: int = 3
    backoff_s: float = 1.0


class Context(Generic[R]):
    """What `run` is given: the worker's room, whose task it is, and a way to say how far it is.

    `run` may be called again with the same task, also after it came to its end: when its worker died before
    that was noted. What it does must come to the same, by names made of `task_id`.
    """

    __slots__ = ("_progress", "room", "task_id", "user_id")

    def __init__(self, room: R, task_id: str, user_id: str, progress: Callable[[str, int], None]) -> None:
        self.room = room
        self.task_id = task_id
        self.user_id = user_id
        self._progress = progress

    def progress(self, percent: float) -> None:
        """Say how far the task is; costs nothing, however often."""
        self._progress(self.task_id, max(0, min(99, int(percent))))


Run = Callable[[Context[R], Any], Awaitable[Any]]
"""Does a task and answers its result, which JSON can hold.

Raises Refused, or anything else to be tried again.
"""


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """One kind of task. `undo` removes what `run` has left of a task that ended in no result."""

    name: str
    input: type[msgspec.Struct]
    limits: Limits
    run: Run[R]
    undo: Callable[[Context[R], Any], Awaitable[None]] | None = None


class Kinds(Generic[R]):
    """The kinds that one worker does. `R` is what they all work with: the worker's room."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind[R]] = {}

    def kind(
        self,
        name: str,
        task_input: type[I],
        limits: Limits,
        undo: Callable[[Context[R], I], Awaitable[None]] | None = None,
    ) -> Callable[[Callable[[Context[R], I], Awaitable[Any]]], Callable[[Context[R], I], Awaitable[Any]]]:
        """Register the decorated coroutine function as what is done for tasks of this name."""

        def register(
            run: Callable[[Context[R], I], Awaitable[Any]],
        ) -> Callable[[Context[R], I], Awaitable[Any]]:
            self._kinds[name] = Kind(name, task_input, limits, run, undo)
            return run

        return register

    def __iter__(self) -> Any:
        return iter(self._kinds.values())

    def __getitem__(self, name: str) -> Kind[R]:
        return self._kinds[name]
