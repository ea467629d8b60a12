"""What one part of lobbyd announces to the others on the event bus: facts, each declared once.

An announcement is delivered at least once to every kind of consumer; its `id` is the same each time, and
is made from the fact, so that a publisher who announces it again after a crash announces the same.
Both are msgpack arrays: new fields go to the end, with a default.
"""

import msgspec


class LoginCompleted(msgspec.Struct, frozen=True, array_like=True, tag="login_completed"):
    """A player has come in, at `completed_ms` in ms since the epoch.

    `auto_match` is the Search that they asked for with the login, encoded, or nothing. It is read by who
    looks for opponents alone, so that others need not understand it.
    """

    user_id: str
    auto_match: bytes = b""
    completed_ms: int = 0


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What one player reached in a game. `task_id` is what its server was told to ask for the score by.

    `trace` is that of the player's stay, "" where none is known.
    """

    user_id: str
    score: int
    task_id: str = ""
    trace: str = ""


class GameFinished(msgspec.Struct, frozen=True, array_like=True, tag="game_finished"):
    """A game is over. `finished_ms` is when its server said so, in ms since the epoch."""

    game_session_id: str
    game_type: str
    difficulty: str
    results: tuple[Result, ...]
    finished_ms: int


class PortalTaskSubmitted(msgspec.Struct, frozen=True, array_like=True, tag="portal_task_submitted"):
    """Slow work has been handed in for a player; `by` is who did it, themselves or another for them."""

    user_id: str
    task_id: str
    task_type: str
    priority: str
    by: str = ""


Fact = LoginCompleted | GameFinished | PortalTaskSubmitted


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """A fact on the bus. `trace_id` is that of the stay in which it came about."""

    id: str
    trace_id: str
    fact: Fact
