"""Every message, one file a domain. Importing this package declares them all."""

from protocol.messages import auth, connection, waiting
from protocol.messages.declaration import (
    EVENTS,
    REQUESTS,
    SOCKETD,
    Access,
    EventType,
    Message,
    Nothing,
    RequestType,
    event_name,
    owned_by,
)

__all__ = [
    "EVENTS",
    "REQUESTS",
    "SOCKETD",
    "Access",
    "EventType",
    "Message",
    "Nothing",
    "RequestType",
    "auth",
    "connection",
    "event_name",
    "owned_by",
    "waiting",
]
