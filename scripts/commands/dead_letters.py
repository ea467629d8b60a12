"""`lobbyctl dead-letters`: what an operator types to see what was given up on, and to say what becomes of it.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See what was given up on; try it again, or drop it.", no_args_is_help=True)

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue id, such as portal_queue:notification.")]
LetterId = Annotated[str, typer.Argument(metavar="LETTER", help="A dead letter's id, as `list` shows it.")]
Letters = Annotated[
    list[str] | None, typer.Argument(metavar="[LETTER]...", help="Dead letters' ids, as `list` shows them.")
]
AllOfThem = Annotated[bool, typer.Option("--all", help="All that the queue has.")]


@app.command("list")
def show_list(
    queue: Annotated[
        str | None, typer.Argument(metavar="[QUEUE]", help="A queue id; without it, all queues' counts.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Show so many at most.")] = 50,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show how many dead letters each queue has, or a queue's, the oldest first.

    Example: lobbyctl dead-letters list ranking_queue:submit
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import dead_letters_work  # noqa: PLC0415

    run(dead_letters_work.show_list, data_dir, config, queue, limit, as_json=as_json)


@app.command("show")
def show(
    queue: Queue,
    letter: LetterId,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show a dead letter: its cause, and what is in it.

    Exits with 1 when there is no such letter.

    Example: lobbyctl dead-letters show ranking_queue:submit 1734480000000-0
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import dead_letters_work  # noqa: PLC0415

    run(dead_letters_work.show, data_dir, config, queue, letter, as_json=as_json)


@app.command("requeue")
def requeue(
    queue: Queue,
    letters: Letters = None,
    every: AllOfThem = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have dead letters worked on again, as if they had just come.

    Exits with 1 when one of them is not there, or cannot be taken.

    Example: lobbyctl dead-letters requeue ranking_queue:submit --all
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import dead_letters_work  # noqa: PLC0415

    run(dead_letters_work.requeue, data_dir, config, queue, _some(letters, every), as_json=as_json)


@app.command("drop")
def drop(
    queue: Queue,
    letters: Letters = None,
    every: AllOfThem = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Throw dead letters away, for good.

    Exits with 1 when one of them is not there.

    Example: lobbyctl dead-letters drop ranking_queue:submit 1734480000000-0
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import dead_letters_work  # noqa: PLC0415

    run(dead_letters_work.drop, data_dir, config, queue, _some(letters, every), as_json=as_json)


def _some(letters: list[str] | None, every: bool) -> list[str] | None:
    if every == bool(letters):
        raise typer.BadParameter("Name dead letters, or say --all.")
    return None if every else letters
