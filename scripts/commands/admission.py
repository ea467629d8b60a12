"""`lobbyctl admission`: what an operator types to see and change how many are let in.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See and change how many players are let in.", no_args_is_help=True)


CONFIGURED = "configured"


def _some(rate: str) -> str:
    if rate == CONFIGURED:
        return rate
    if not rate.lstrip("-").isdecimal():
        raise typer.BadParameter(f"{rate!r} is neither a number of players nor `{CONFIGURED}`.")
    if int(rate) == 0:
        raise typer.BadParameter("0 lets nobody in: use `lobbyctl admission pause`.")
    if int(rate) < 0:
        raise typer.BadParameter(f"{rate} is not a number of players.")
    return rate


@app.command("show")
def show(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None) -> None:
    """Show how many are let in, who decided that, and how long players wait.

    Example: lobbyctl admission show --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import admission_look  # noqa: PLC0415

    run(admission_look.show, data_dir, config, as_json=as_json)


# A negative number would be taken for an option, and refused in words that do not help.
@app.command("rate", context_settings={"ignore_unknown_options": True})
def rate(
    total: Annotated[
        str,
        typer.Argument(
            metavar=f"N|{CONFIGURED}",
            callback=_some,
            help=f"Players a minute, for all pods together; at least 1. `{CONFIGURED}`: what is configured.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Let in N players a minute, all pods together.

    Shows first how long the last in line waits now and would then,
    and asks. The rate holds until an operator sets another one,
    whatever is configured and whoever restarts; `configured` gives
    it back to configuration.

    Exits with 1 when the answer is no.

    Example: lobbyctl admission rate 600 --yes
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import admission_change  # noqa: PLC0415

    rate = None if total == CONFIGURED else int(total)
    run(admission_change.rate, data_dir, config, rate, is_sure=yes, as_json=as_json)


@app.command("pause")
def pause(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None) -> None:
    """Let nobody in until `resume`.

    Everybody keeps their place; whose turn has come already may still come in.

    Example: lobbyctl admission pause
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import admission_change  # noqa: PLC0415

    run(admission_change.pause, data_dir, config, as_json=as_json)


@app.command("resume")
def resume(
    as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Let players in again after a pause.

    Example: lobbyctl admission resume
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import admission_change  # noqa: PLC0415

    run(admission_change.resume, data_dir, config, as_json=as_json)


@app.command("why")
def why(
    user: Annotated[str, typer.Argument(metavar="USER", help="A username.")],
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Say where a player stands, and what they wait for.

    Exits with 1 when there is no such user.

    Example: lobbyctl admission why bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import admission_look  # noqa: PLC0415

    run(admission_look.why, data_dir, config, user, as_json=as_json)
