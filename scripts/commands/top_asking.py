"""What `lobbyctl top` asks before it does something."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label


class Confirm(ModalScreen[bool]):
    """A question. `y` is a yes; Escape and `n` are a no, and what Enter does is nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "dismiss(True)", "Yes"),
        ("n,escape", "dismiss(False)", "No"),
    ]
    CSS = """
    Confirm { align: center middle; }
    Confirm Vertical { width: 70; height: auto; border: heavy $warning; }
    Confirm Label { width: 100%; }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question in a box."""
        with Vertical():
            yield Label(self._question, markup=False)
            yield Label("y: yes    n, Escape: no")


class AskRate(ModalScreen[int | None]):
    """How many players a minute; None where the answer is no number, or Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "Leave it")]
    CSS = """
    AskRate { align: center middle; }
    AskRate Vertical { width: 60; height: auto; border: heavy $accent; }
    AskRate Label { width: 100%; }
    """

    def compose(self) -> ComposeResult:
        """The question, and a line to type on."""
        with Vertical():
            yield Label("Players a minute, all pods together. Enter goes on, Escape leaves it.")
            yield Input(type="integer", max_length=9)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the number."""
        is_some = event.value.isdecimal() and int(event.value) > 0
        self.dismiss(int(event.value) if is_some else None)
