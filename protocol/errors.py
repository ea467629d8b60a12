"""What can go wrong on the wire, in two kinds: answer and go on, or say goodbye and close.

Every code that a client can meet is declared here once, with its status and meaning; the
reference in `docs/protocol.md` is made from these declarations.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """A declared error reply.

    `status` has HTTP's meaning. `message` is what a person reads when the place that raises the
    error has nothing more exact to say.
    """

    code: str
    status: int
    message: str


ERROR_KINDS: dict[str, ErrorKind] = {}


def _kind(code: str, status: int, message: str) -> ErrorKind:
    return ERROR_KINDS.setdefault(code, ErrorKind(code, status, message))


INVALID_REQUEST = _kind("INVALID_REQUEST", 400, "A field is missing or wrong; the message names it.")
UNKNOWN_TYPE = _kind("UNKNOWN_TYPE", 400, "There is no request of this type.")
INVALID_TICKET = _kind(
    "INVALID_TICKET", 400, "This ticket is not READY yet, or belongs to another clientId of yours."
)
INVALID_SCORE = _kind("INVALID_SCORE", 400, "This score cannot be: the message says why.")
NOT_AUTHENTICATED = _kind("NOT_AUTHENTICATED", 401, "Sign in first: auth.finalize or auth.resume.")
INVALID_CREDENTIALS = _kind("INVALID_CREDENTIALS", 401, "The username or the password is wrong.")
INVALID_TOKEN = _kind("INVALID_TOKEN", 401, "This token is not valid (any more): log in again.")
TOKEN_REUSED = _kind(
    "TOKEN_REUSED", 401, "This refresh token was used before; its whole family is revoked: log in again."
)
FORBIDDEN = _kind("FORBIDDEN", 403, "You may not do this: the message says why.")
ACCOUNT_DISABLED = _kind("ACCOUNT_DISABLED", 403, "This account is disabled.")
TICKET_NOT_FOUND = _kind("TICKET_NOT_FOUND", 404, "This ticket is unknown, expired or spent: log in again.")
USER_NOT_FOUND = _kind("USER_NOT_FOUND", 404, "There is no user of this id.")
NOT_IN_QUEUE = _kind("NOT_IN_QUEUE", 404, "The player neither waits for opponents nor has any.")
SESSION_NOT_FOUND = _kind("SESSION_NOT_FOUND", 404, "There is no session of play of this id.")
TASK_NOT_FOUND = _kind(
    "TASK_NOT_FOUND", 404, "You have no task of this id, or it has been over for too long."
)
DUPLICATE_ID = _kind("DUPLICATE_ID", 409, "A request with this id is still in flight.")
USERNAME_TAKEN = _kind("USERNAME_TAKEN", 409, "This username is taken: choose another.")
EMAIL_TAKEN = _kind("EMAIL_TAKEN", 409, "There is an account with this email address already.")
SESSION_TAKEN_OVER = _kind("SESSION_TAKEN_OVER", 409, "A newer login of yours holds this ticket.")
FRIENDS_FULL = _kind("FRIENDS_FULL", 409, "One of the two has as many friends as there may be.")
ALREADY_MATCHING = _kind("ALREADY_MATCHING", 409, "The player waits for opponents already.")
ALREADY_MATCHED = _kind(
    "ALREADY_MATCHED", 409, "The player has opponents already: `data` says whom and where."
)
ALREADY_FINISHED = _kind("ALREADY_FINISHED", 409, "It is over already.")
WRONG_OFFSET = _kind(
    "WRONG_OFFSET",
    409,
    "These bytes do not follow those that are there: `data.uploadOffset` says where to go on.",
)
QUOTA_EXCEEDED = _kind("QUOTA_EXCEEDED", 413, "Your files would take more room than you have.")
UNSUPPORTED_VERSION = _kind("UNSUPPORTED_VERSION", 426, "This server speaks protocol version 1.")
RATE_LIMITED = _kind("RATE_LIMITED", 429, "Too many requests: wait for retryAfterMs.")
TOO_MANY_ATTEMPTS = _kind("TOO_MANY_ATTEMPTS", 429, "Too many attempts: wait for retryAfterMs.")
TOO_MANY_TASKS = _kind(
    "TOO_MANY_TASKS", 429, "You have as many open tasks as anybody may have: wait until some are over."
)
INTERNAL = _kind("INTERNAL", 500, "The server failed on this request; it has been written down.")
BUSY = _kind("BUSY", 503, "The server cannot take this now: try again after retryAfterMs.")
QUEUE_FULL = _kind("QUEUE_FULL", 503, "The waiting room is full: try again after retryAfterMs.")
TIMEOUT = _kind("TIMEOUT", 504, "No answer in time; the outcome is unknown: ask again with the same key.")


BUSY_RETRY_MS = 1000
"""What a sender is told to wait while a queue is full or a store away."""


class RequestError(Exception):
    """A request is refused; its sender gets an error reply and the connection lives on.

    `retry_after_ms` tells how long to wait before trying again, where that can help; `data` is the state that
    stands in the way (a Message), where the error's declaration promises it.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str | None = None,
        retry_after_ms: int | None = None,
        data: object | None = None,
    ) -> None:
        super().__init__(message or kind.message)
        self.kind = kind
        self.message = message or kind.message
        self.retry_after_ms = retry_after_ms
        self.data = data


class GoodbyeCode(Enum):
    """Why the server closes a connection; the value says whether to come back (`reconnect`)."""

    PROTOCOL_ERROR = ("PROTOCOL_ERROR", False, "These bytes are no lobbyd protocol.")
    UNSUPPORTED_VERSION = ("UNSUPPORTED_VERSION", False, "This server speaks protocol version 1.")
    IDLE = ("IDLE", True, "Nothing was heard from you for too long.")
    HANDSHAKE_TIMEOUT = ("HANDSHAKE_TIMEOUT", True, "No hello came in time.")
    SLOW_CONSUMER = ("SLOW_CONSUMER", True, "You do not read what is sent to you.")
    SERVER_DRAINING = ("SERVER_DRAINING", True, "This node is going away: connect to another.")
    TAKEN_OVER = ("TAKEN_OVER", False, "You came back on another connection, or an operator ended your stay.")
    TOO_MANY_CONNECTIONS = ("TOO_MANY_CONNECTIONS", True, "Too many connections from your address.")

    def __init__(self, code: str, reconnect: bool, message: str) -> None:
        self.code = code
        self.reconnect = reconnect
        self.message = message


class ProtocolError(Exception):
    """The peer's bytes are no valid frame or envelope: say GOODBYE and close."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
