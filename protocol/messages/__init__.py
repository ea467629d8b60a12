"""Every message, one file a domain. Importing this package declares them all."""

from protocol.messages import auth, connection, iam, matching, monitor, ranking, waiting
from protocol.messages.declaration import (
    ADMIN,
    EVENTS,
    GAME_SERVER,
    REQUESTS,
    SOCKETD,
    TRUSTED,
    Access,
    EventType,
    Message,
    Nothing,
    RequestType,
    event_name,
    owned_by,
)

__all__ = [
    "ADMIN",
    "EVENTS",
    "GAME_SERVER",
    "REQUESTS",
    "SOCKETD",
    "TRUSTED",
    "Access",
    "EventType",
    "Message",
    "Nothing",
    "RequestType",
    "auth",
    "connection",
    "event_name",
    "iam",
    "matching",
    "monitor",
    "owned_by",
    "ranking",
    "waiting",
]
