"""Which connections a node holds, how many from where, and which requests await an answer."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from runtime.traffic import Traffic

if TYPE_CHECKING:
    from socketd.connection import Connection


class Pending(msgspec.Struct, frozen=True):
    """A request that a worker has not answered yet. Times in seconds of the loop's clock."""

    connection: "Connection"
    request_id: int
    sent_s: float


class Registry:
    """The node's connections by id and its pending requests by number. Must be made inside a running loop."""

    def __init__(self, first_number: int, max_connections: int, max_per_peer: int) -> None:
        """`first_number` is above every connection id and request number of the server id's earlier boots."""
        self._next_id = self._next_number = first_number
        self._max_connections = max_connections
        self._max_per_peer = max_per_peer
        self._per_peer: Counter[str] = Counter()
        self._reserved = 0
        self._connections: dict[int, Connection] = {}
        self._pending: dict[int, Pending] = {}
        self._now_s = asyncio.get_running_loop().time
        self.traffic = Traffic()
        self._topics: dict[str, set[Connection]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> "Iterator[Connection]":
        return iter(list(self._connections.values()))

    def add(self, connection: "Connection", peer: str) -> int | None:
        """Take a connection in and answer its id; None when there are too many, here or from this peer."""
        if self._is_full(peer):
            return None
        self._per_peer[peer] += 1
        connection_id = self._next_id
        self._next_id += 1
        self._connections[connection_id] = connection
        return connection_id

    def remove(self, connection_id: int, peer: str) -> None:
        """Forget a closed connection."""
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return
        self.leave_all(connection)
        self._forget(peer)

    def reserve(self, peer: str) -> bool:
        """Count a connection that is about to come in; False when there are too many, as with `add`."""
        if self._is_full(peer):
            return False
        self._per_peer[peer] += 1
        self._reserved += 1
        return True

    def release(self, peer: str) -> None:
        """It has come in, to be added now, or will not come."""
        self._reserved -= 1
        self._forget(peer)

    def get(self, connection_id: int) -> "Connection | None":
        """The open connection with this id."""
        return self._connections.get(connection_id)

    def join(self, topic: str, connection: "Connection") -> None:
        """Have a connection hear what is sent to a topic."""
        self._topics[topic].add(connection)

    def leave(self, topic: str, connection: "Connection") -> None:
        """Have it hear no more of that."""
        joined = self._topics.get(topic, set())
        joined.discard(connection)
        if not joined:
            self._topics.pop(topic, None)

    def leave_all(self, connection: "Connection") -> None:
        """Have it hear of nothing that it joined."""
        for topic in list(self._topics):
            self.leave(topic, connection)

    def joined(self, topic: str) -> "list[Connection]":
        """The connections that hear what is sent to a topic."""
        return list(self._topics.get(topic, ()))

    def expect(self, connection: "Connection", request_id: int, now_s: float) -> int:
        """Note that an answer is awaited, and give the request its number."""
        number = self._next_number
        self._next_number += 1
        self._pending[number] = Pending(connection, request_id, now_s)
        connection.in_flight.add(request_id)
        return number

    def settle(self, number: int) -> Pending | None:
        """Take a pending request out: it is being answered. None when it was answered before."""
        pending = self._pending.pop(number, None)
        if pending is not None:
            pending.connection.in_flight.discard(pending.request_id)
            self.traffic.answered(self._now_s() - pending.sent_s)
        return pending

    def sent_before(self, then_s: float) -> list[int]:
        """The numbers of the requests that were sent before a time, oldest first."""
        overdue = []
        for number, pending in self._pending.items():
            if pending.sent_s >= then_s:
                break
            overdue.append(number)
        return overdue

    def _is_full(self, peer: str) -> bool:
        held = len(self._connections) + self._reserved
        return held >= self._max_connections or self._per_peer[peer] >= self._max_per_peer

    def _forget(self, peer: str) -> None:
        self._per_peer[peer] -= 1
        if not self._per_peer[peer]:
            del self._per_peer[peer]
