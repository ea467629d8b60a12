"""What `lobbyctl doctor` finds."""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """How it stands with one thing. Only what is WRONG makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Found(msgspec.Struct, frozen=True):
    """One thing that was looked at: how it is, and what to do where that is not as it should be."""

    check: str
    state: State
    what: str
    do: str = ""


def ok(check: str, what: str) -> Found:
    """All is well."""
    return Found(check, State.OK, what)


def warning(check: str, what: str, do: str) -> Found:
    """It works, and will not for ever or for everybody."""
    return Found(check, State.WARNING, what, do)


def wrong(check: str, what: str, do: str) -> Found:
    """Something does not work, or what is promised is not kept."""
    return Found(check, State.WRONG, what, do)
