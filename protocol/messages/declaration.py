"""How a message is declared: once, on its Struct, with everything that others derive from it.

Dispatch, validation, the workers' own check of their handlers and `docs/protocol.md` all read
the two tables here, `REQUESTS` and `EVENTS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import msgspec

from protocol.errors import ErrorKind
from protocol.queues import Lane


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A map on the wire: snake_case here, camelCase there."""


class Nothing(Message, frozen=True):
    """A message without fields."""


ADMIN = "ADMIN"
"""The role of operators' own accounts."""

GAME_SERVER = "GAME_SERVER"
"""The role of a game's server."""

TRUSTED = frozenset({ADMIN, GAME_SERVER})
"""The roles of trust: a policy may give them to who has another one, and whoever loses one is kicked out."""


class Access(Enum):
    """What a connection must be before a request is taken from it."""

    CONNECTED = "connected"
    SIGNED_IN = "signed in"


@dataclass(frozen=True, slots=True)
class RequestType:
    """One request's declaration.

    `owner` is the kind of worker that answers it, or `socketd` for what the node answers itself. One that is
    `gated` is answered to those alone whom a policy lets send it (`workers/gate.py`).
    """

    name: str
    data: type[Message]
    reply: type[Message]
    owner: str
    access: Access
    gated: bool
    lane: Lane
    status: int
    scope: str | None
    errors: tuple[ErrorKind, ...]
    confidential: bool


@dataclass(frozen=True, slots=True)
class EventType:
    """One event's declaration."""

    name: str
    data: type[Message]


REQUESTS: dict[str, RequestType] = {}
EVENTS: dict[str, EventType] = {}
_EVENT_NAMES: dict[type[Message], str] = {}

M = TypeVar("M", bound=type[Message])

SOCKETD = "socketd"


def request(
    name: str,
    *,
    owner: str,
    reply: type[Message],
    access: Access = Access.SIGNED_IN,
    gated: bool = False,
    lane: Lane = Lane.NORMAL,
    status: int = 200,
    scope: str | None = None,
    errors: tuple[ErrorKind, ...] = (),
    confidential: bool = False,
) -> Callable[[M], M]:
    """Declare the decorated Struct as the data of request `name`."""

    def declare(data: M) -> M:
        if name in REQUESTS:
            raise ValueError(f"Request {name} is declared twice.")
        REQUESTS[name] = RequestType(
            name, data, reply, owner, access, gated, lane, status, scope, errors, confidential
        )
        return data

    return declare


def event(name: str) -> Callable[[M], M]:
    """Declare the decorated Struct as the data of event `name`."""

    def declare(data: M) -> M:
        if name in EVENTS:
            raise ValueError(f"Event {name} is declared twice.")
        EVENTS[name] = EventType(name, data)
        _EVENT_NAMES[data] = name
        return data

    return declare


def event_name(data: Message) -> str:
    """The name under which `data` was declared as an event. Raises KeyError when it was not."""
    return _EVENT_NAMES[type(data)]


def owned_by(owner: str) -> dict[type[Message], RequestType]:
    """The requests that one kind of process answers, by their data type."""
    return {declared.data: declared for declared in REQUESTS.values() if declared.owner == owner}
