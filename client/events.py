"""Events as an async iterator."""

import asyncio
from collections import deque

from protocol.messages import Message

DEFAULT_LIMIT = 256
"""Events that wait for a slow reader before the oldest are lost."""


class EventStream:
    """`async for event in stream`, for one reader.

    When more than `limit` events wait, the oldest are dropped and counted in `dropped`: events are
    hints (docs/protocol.md), and holding up the socket instead would hold up replies too.
    """

    __slots__ = ("_ended", "_error", "_events", "_waiter", "dropped")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.dropped = 0
        self._events: deque[Message] = deque(maxlen=limit)
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None

    def push(self, event: Message) -> None:
        """Add an event."""
        self.dropped += len(self._events) == self._events.maxlen
        self._events.append(event)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more events: after those that wait, the reader's loop ends, or raises `error`."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> Message:
        while not self._events:
            if self._ended:
                raise self._error or StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
