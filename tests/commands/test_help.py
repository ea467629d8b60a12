"""Every command of `lobbyctl` says in its help how it is typed, and answers programs in JSON."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from scripts.commands.main import app

WITHOUT_JSON = {
    "lobbyctl top": "a screen for people; programs read `lobbyctl status --json`",
}

Command = tuple[str, TyperCommand | TyperGroup]


def walked(command: Any, name: str) -> Iterator[Command]:
    """Each command that does something, with the words that call it."""
    assert isinstance(command, TyperCommand | TyperGroup)
    if isinstance(command, TyperCommand):
        yield name, command
        return
    if command.invoke_without_command:
        yield name, command
    for word, inner in command.commands.items():
        yield from walked(inner, f"{name} {word}")


COMMANDS = dict(walked(typer.main.get_command(app), "lobbyctl"))

every_command = pytest.mark.parametrize("name", COMMANDS)


@every_command
def test_its_help_has_an_example_that_can_be_typed(name: str) -> None:
    command = COMMANDS[name]
    found = re.search(r"^Example: (.+)$", command.help or "", re.MULTILINE)
    assert found is not None
    example = found[1]
    assert example.startswith(name)
    context = command.make_context(name, shlex.split(example.removeprefix(name)))
    assert not context.args


@every_command
def test_programs_get_json_from_it(name: str) -> None:
    has_json = any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert has_json == (name not in WITHOUT_JSON)


@every_command
def test_each_of_its_options_says_what_it_is(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), parameter.name


def test_only_commands_that_there_are_go_without_json() -> None:
    assert WITHOUT_JSON.keys() <= COMMANDS.keys()
    assert len(COMMANDS) > 50
