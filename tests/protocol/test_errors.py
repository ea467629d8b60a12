"""The codes that clients meet are those of docs/protocol.md, with their statuses."""

from protocol.errors import BUSY, ERROR_KINDS, GoodbyeCode, RequestError


def test_statuses_have_their_meaning_from_http() -> None:
    assert {code: kind.status for code, kind in ERROR_KINDS.items()} == {
        "INVALID_REQUEST": 400,
        "UNKNOWN_TYPE": 400,
        "INVALID_TICKET": 400,
        "INVALID_SCORE": 400,
        "NOT_AUTHENTICATED": 401,
        "INVALID_CREDENTIALS": 401,
        "INVALID_TOKEN": 401,
        "TOKEN_REUSED": 401,
        "FORBIDDEN": 403,
        "ACCOUNT_DISABLED": 403,
        "TICKET_NOT_FOUND": 404,
        "USER_NOT_FOUND": 404,
        "NOT_IN_QUEUE": 404,
        "SESSION_NOT_FOUND": 404,
        "TASK_NOT_FOUND": 404,
        "DUPLICATE_ID": 409,
        "WRONG_OFFSET": 409,
        "USERNAME_TAKEN": 409,
        "EMAIL_TAKEN": 409,
        "SESSION_TAKEN_OVER": 409,
        "FRIENDS_FULL": 409,
        "ALREADY_MATCHING": 409,
        "ALREADY_MATCHED": 409,
        "ALREADY_FINISHED": 409,
        "QUOTA_EXCEEDED": 413,
        "UNSUPPORTED_VERSION": 426,
        "TOO_MANY_TASKS": 429,
        "RATE_LIMITED": 429,
        "TOO_MANY_ATTEMPTS": 429,
        "INTERNAL": 500,
        "BUSY": 503,
        "QUEUE_FULL": 503,
        "TIMEOUT": 504,
    }


def test_every_error_says_something() -> None:
    for code, kind in ERROR_KINDS.items():
        assert kind.code == code
        assert kind.message.endswith(".") or ":" in kind.message


def test_goodbye_says_whether_coming_back_can_help() -> None:
    assert {code.code: code.reconnect for code in GoodbyeCode} == {
        "PROTOCOL_ERROR": False,
        "UNSUPPORTED_VERSION": False,
        "IDLE": True,
        "HANDSHAKE_TIMEOUT": True,
        "SLOW_CONSUMER": True,
        "SERVER_DRAINING": True,
        "TAKEN_OVER": False,
        "TOO_MANY_CONNECTIONS": True,
    }
    assert all(code.name == code.code for code in GoodbyeCode)


def test_an_error_says_its_kind_s_message_unless_it_has_a_better_one() -> None:
    assert RequestError(BUSY).message == str(RequestError(BUSY)) == BUSY.message
    assert RequestError(BUSY, "The queue login_queue is full.").message == "The queue login_queue is full."
    assert RequestError(BUSY, retry_after_ms=250).retry_after_ms == 250
