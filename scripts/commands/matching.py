"""`lobbyctl matching`: what an operator types to see who waits for opponents, and why.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(invoke_without_command=True)


@app.callback()
def show(
    context: typer.Context,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """See who waits for opponents, and why.

    Alone it shows the queues of players: who waits, how long players waited lately, and how equal
    matches were; only those in which somebody waits or was matched.

    Example: lobbyctl matching --json
    """
    if context.invoked_subcommand is not None:
        return
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import matching_look  # noqa: PLC0415

    run(matching_look.show, data_dir, config, as_json=as_json)


@app.command("why")
def why(
    user: Annotated[str, typer.Argument(metavar="USER", help="A username.")],
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Say where a player stands, and what they wait for.

    Exits with 1 when there is no such user.

    Example: lobbyctl matching why bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import matching_look  # noqa: PLC0415

    run(matching_look.why, data_dir, config, user, as_json=as_json)
