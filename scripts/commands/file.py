"""`lobbyctl file`: what an operator types to see what a user has stored, and to remove it.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See what users have stored; remove it.", no_args_is_help=True)

Username = Annotated[str, typer.Argument(metavar="USER", help="A user's name.")]


@app.command("list")
def show_list(
    user: Username,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Show so many at most.")] = 50,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show a user's files and uploads with their sizes, the newest first, and the room that all of them take.

    Exits with 1 when there is no such user.

    Example: lobbyctl file list bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import file_work  # noqa: PLC0415

    run(file_work.show_list, data_dir, config, user, limit, as_json=as_json)


@app.command("remove")
def remove(
    user: Username,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Files' ids, as `list` shows them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the user has.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Remove files and uploads, for good.

    Portal workers remove the bytes, and free the room, within a minute. An upload that is under way is
    cancelled, and its user told. Exits with 1 when there is no such user, or a file is none of theirs.

    Example: lobbyctl file remove bora task_1734480000000_bora_1
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import file_work  # noqa: PLC0415

    if every == bool(files):
        raise typer.BadParameter("Name files, or say --all.")
    run(file_work.remove, data_dir, config, user, None if every else files, as_json=as_json)
