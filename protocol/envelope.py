"""What lobbyd's own processes send each other over queues: envelopes to workers, deliveries to nodes.

Both are msgpack arrays, so that a field is a position: new fields go to the end, with a default.
"""

import msgspec
from msgspec import Raw

from protocol.queues import Lane, QueueType


class Address(msgspec.Struct, frozen=True, array_like=True):
    """One connection, anywhere in the cluster. Connection ids are never used twice by a server id."""

    server_id: str
    connection_id: int

    def __str__(self) -> str:
        return f"{self.server_id}/{self.connection_id}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """The reverse of str(). Raises ValueError for anything else."""
        server_id, _, connection_id = text.rpartition("/")
        address = cls(server_id, int(connection_id))
        if str(address) != text:  # int() takes "+1", " 1" and "1_0" too.
            raise ValueError(f"{text!r} is no address of a connection.")
        return address


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A request on its way to a worker.

    `id` is the client's. `data` is the declared Struct, validated and encoded again; for a confidential
    request it is sealed together with the player's address. Times are in
    ms since the epoch: past `deadline_ms` nobody waits for the answer any more. `number` is the node's
    own for this request, never used twice. `trace_id` names the request among all, and is the same
    when it is delivered again; what `trace_of` takes of it is that of its player's whole stay. `peer` is the
    player's address once a confidential request is opened, and empty in any other: who needs it declares the
    request confidential. `key` is the client's idempotency key. `user_id` is that of the signed-in
    connection.
    """

    type: str
    origin: Address
    id: int
    number: int
    data: Raw
    sent_ms: int
    deadline_ms: int
    trace_id: str
    peer: str
    key: str | None = None
    user_id: str | None = None

    @property
    def seal_context(self) -> bytes:
        """What a sealed `data` is bound to: this very request."""
        return f"{self.type} {self.origin} {self.number}".encode()


def trace_of(trace_id: str) -> str:
    """What the ids of all requests of a stay begin with, from the login at the door on: the stay's trace."""
    return trace_id.partition("-")[0]


class Confidence(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed of a confidential request: its data and the player's address."""

    data: Raw
    peer: str


class SignIn(msgspec.Struct, frozen=True, array_like=True, tag="in"):
    """The connection belongs to this user from now on. `trace` is that of the stay, "" while unknown."""

    user_id: str
    trace: str = ""


class SignOut(msgspec.Struct, frozen=True, array_like=True, tag="out"):
    """The connection belongs to nobody from now on, unless another user has it by now."""

    user_id: str


class Close(msgspec.Struct, frozen=True, array_like=True, tag="close"):
    """The connection gets its frame, then GOODBYE with this code, and is closed.

    `user_id` is whose session it lost; a connection that another user has by now is left alone. None is for
    one that lost a ticket: it is left alone once it is signed in.
    """

    code: str
    user_id: str | None = None


class Watch(msgspec.Struct, frozen=True, array_like=True, tag="watch"):
    """The connection streams this ticket: while it is open the ticket keeps its place."""

    tid: str


class Join(msgspec.Struct, frozen=True, array_like=True, tag="join"):
    """The connection hears what is sent to this topic, until it leaves or signs out."""

    topic: str


class Leave(msgspec.Struct, frozen=True, array_like=True, tag="leave"):
    """The connection no longer hears what is sent to this topic."""

    topic: str


Change = SignIn | SignOut | Close | Watch | Join | Leave


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """A frame for one connection of a node, and what the node must change about the connection.

    `frame` may be those of several events, one after the other.
    `answers` is the number of the request that the frame answers, None for an event. `once` names a
    fact that the connection should be told one time only: a second delivery with the connection's
    last `once` is dropped, so that what is told again after a crash is not seen twice. `user_id` is whom it
    is for, where that must still be so when it arrives. With a `topic` it is for all connections that
    have joined it, whatever the `connection_id`. `sealed` says that `frame` is, for the node alone.
    """

    connection_id: int
    frame: bytes
    answers: int | None = None
    change: Change | None = None
    once: str | None = None
    user_id: str | None = None
    topic: str | None = None
    sealed: bool = False

    def seal_context(self, server_id: str) -> bytes:
        """What a sealed `frame` is bound to: the one connection of this node, and the request it answers."""
        return f"{server_id}/{self.connection_id} {self.answers}".encode()


class ServerStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A process's report to the status manager.

    `event` says what happened: server_starting, server_ready, server_heartbeat, server_draining,
    server_stopped, server_error. A heartbeat repeats the last announcement's `status_code` and `error`.
    Fields left None stay as they were in the status hash. `requests` and `errors` count those answered since
    the last report.
    """

    type: str = "server_status"
    event: str
    server_id: str
    boot_id: str
    status_code: str | None = None
    server_type: str | None = None
    start_time: str | None = None
    queue_id: str | None = None
    cpu_usage: float | None = None
    memory_usage: float | None = None
    network_status: str | None = None
    host: str | None = None
    port: int | None = None
    pid: int | None = None
    connections: int | None = None
    version: str | None = None
    error: str | None = None
    sent_at: int = 0
    requests: int | None = None
    errors: int | None = None
    latency_p99_ms: float | None = None
    metrics_port: int | None = None


class QueueConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a queue behaves: entries it holds at most, seconds an unread entry lives, its priority."""

    max_size: int
    expire_time: float
    priority: str


class QueueDefinition(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is created: the `data` of a `queue_create` message."""

    server_id: str
    queue_id: str
    queue_type: str
    config: QueueConfig


class QueueCreate(msgspec.Struct, frozen=True, kw_only=True):
    """The message that creates a queue."""

    type: str = "queue_create"
    data: QueueDefinition


def queue_create(
    server_id: str,
    queue_id: str,
    queue_type: QueueType,
    *,
    max_size: int,
    expire_s: float,
    lane: Lane = Lane.NORMAL,
) -> QueueCreate:
    """The message that creates a queue of `server_id`, a node's or a kind of worker's.

    `max_size` is how many entries it holds, `expire_s` how many seconds an unread one lives.
    """
    config = QueueConfig(max_size=max_size, expire_time=expire_s, priority=lane.value)
    return QueueCreate(
        data=QueueDefinition(
            server_id=server_id, queue_id=queue_id, queue_type=queue_type.label, config=config
        )
    )
