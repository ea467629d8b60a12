"""`lobbyctl audit`: what an operator types to see who did what, and what was decided.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See who did what, and what was decided.", no_args_is_help=True)

Count = Annotated[int, typer.Option("-n", metavar="N", min=1, max=10_000, help="Lines at most.")]
Text = str | None


@app.command("tail")
def tail(
    count: Count = 20,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show the newest lines, the oldest of them first.

    Example: lobbyctl audit tail -n 50
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import audit_look  # noqa: PLC0415

    run(audit_look.tail, data_dir, config, count, as_json=as_json)


@app.command("search")
def search(  # noqa: PLR0913, PLR0917 - an option is an argument
    who: Annotated[Text, typer.Option(metavar="NAME", help="A user, or an operator.")] = None,
    action: Annotated[Text, typer.Option(metavar="TEXT", help="Such as queue:join, or queue:*.")] = None,
    resource: Annotated[Text, typer.Option(metavar="TEXT", help="Such as queue:login, or queue:*.")] = None,
    result: Annotated[Text, typer.Option(metavar="RESULT", help="ALLOWED or DENIED.")] = None,
    since: Annotated[
        Text, typer.Option(metavar="TIME", help="ISO 8601, such as 2024-12-18 or 2024-12-18T10:00Z.")
    ] = None,
    count: Count = 50,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Search all that was ever written down; the newest N that fit, the oldest of them first.

    A text that ends in * is a beginning.

    Example: lobbyctl audit search --who kim --action "admission:*" --since 2024-12-18
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import audit_look  # noqa: PLC0415

    wanted = (who, action, resource, result, since)
    run(audit_look.search_all, data_dir, config, wanted, count, as_json=as_json)
