"""What people see of `lobbyctl up`: lines, and on a terminal a picture below them that moves."""

import contextlib
import os
import sys

from rich.console import Console, RenderableType
from rich.live import Live


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on when nobody reads any more: the system matters more than what is said of it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if self.stderr else sys.stdout).fileno())


class Screen:
    """The terminal, or whatever stdout is, or stderr. Nothing here raises when it is gone."""

    def __init__(self, *, is_stderr: bool = False) -> None:
        self._console = _Console(highlight=False, markup=False, emoji=False, stderr=is_stderr)
        self._live: Live | None = None
        self._is_over = False

    @property
    def is_terminal(self) -> bool:
        """Whether there is a terminal that can show a picture."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def say(self, what: RenderableType, style: str = "") -> None:
        """Print, above the picture if there is one. Text is printed as it is, however long."""
        with contextlib.suppress(OSError):
            self._console.print(what, style=style or None, soft_wrap=isinstance(what, str))

    def show(self, picture: RenderableType) -> None:
        """Show the picture in place of the last one. For terminals only."""
        if self._is_over:
            return
        with contextlib.suppress(OSError):
            if self._live is None:
                # It is drawn when told to: a thread that draws would be one that forks with the children.
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(picture, refresh=True)

    def end(self) -> None:
        """Settle, and show no picture any more: its painter may take a while to notice the end."""
        self._is_over = True
        self.settle()

    def settle(self) -> None:
        """Leave the picture as it is: what is said from now on comes below."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()
