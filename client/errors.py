"""What can go wrong for a client, besides what the network itself raises (OSError, TimeoutError)."""

from collections.abc import Mapping
from typing import Any

from protocol.messages.connection import Goodbye


class ClientError(Exception):
    """Anything that lobbyd, or its absence, answers to a client."""


class RequestFailed(ClientError):
    """The server answered a request with an error; the connection lives on.

    `code` is one of `protocol.errors.ERROR_KINDS`, `status` has HTTP's meaning, `retry_after_ms`
    tells how long to wait before asking again, where that can help. `data` is the state that stands in the
    way, by its names on the wire; empty for most.
    """

    def __init__(
        self,
        code: str,
        status: int,
        message: str,
        retry_after_ms: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.data = data or {}


class ConnectionLost(ClientError):
    """The socket is gone, with `goodbye` if the server said why. A request's outcome is unknown."""

    def __init__(self, message: str, goodbye: Goodbye | None = None) -> None:
        super().__init__(message if goodbye is None else f"{goodbye.code}: {message}")
        self.message = message
        self.goodbye = goodbye

    @property
    def code(self) -> str | None:
        """GOODBYE's code, None when the connection went without one."""
        return None if self.goodbye is None else self.goodbye.code


class TakenOver(ClientError):
    """The same user came in elsewhere (`reason` TAKEN_OVER), or an operator ended the stay (ADMIN)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TicketLost(ClientError):
    """The place in the waiting room is gone: `FINALIZE_DEADLINE`, `ABANDONED`, or the ticket's status."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The place in the waiting room is gone ({reason}): log in again.")
        self.reason = reason
