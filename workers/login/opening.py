"""The opening: nobody is let in before it, and who comes before it is drawn.

The draw rests on the user, the opening and the master secret: nobody can foresee it, and to cancel and log in
again draws nothing new.
"""

from datetime import datetime

from runtime.config import ConfigError
from runtime.secrets import Purpose, Secrets

DRAW_BYTES = 4


def opening_ms(opens_at: str) -> int:
    """The setting `login.opens_at` in ms since the epoch, 0 for none. Raises ConfigError for no such time."""
    if not opens_at:
        return 0
    try:
        return int(datetime.fromisoformat(opens_at).timestamp() * 1000)
    except ValueError as error:
        raise ConfigError(f"login.opens_at: {opens_at!r} is no time: {error}") from None


class Draw:
    """Draws numbers of 32 bits for those who come before the opening, in ms since the epoch."""

    def __init__(self, secrets: Secrets, opens_at: int) -> None:
        self._secrets = secrets
        self._opens_at = opens_at

    def __call__(self, user_id: str) -> int:
        """The user's number: the same each time."""
        drawn = self._secrets.sign(Purpose.DRAW, f"{self._opens_at}\n{user_id}".encode())
        return int.from_bytes(drawn[:DRAW_BYTES])
