"""`lobbyctl scaling`: what an operator types about how many workers there are.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(invoke_without_command=True)


@app.callback()
def scaling(
    context: typer.Context,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show how many workers of each kind there are and should be, and why.

    Says who follows: `lobbyctl up --autoscale`, or `lobbyctl scaling
    apply` for workers under systemd. Changes nothing itself.

    Exits with 1 when nothing runs, or when its Redis cannot be reached.

    Example: lobbyctl scaling --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.scaling_look import show  # noqa: PLC0415

    if context.invoked_subcommand is None:
        run(show, data_dir, config, as_json=as_json)


@app.command("apply")
def apply(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done, and why.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each thing said.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have systemd start and stop workers of this machine, until Ctrl-C.

    Starts and stops units such as lobbyd-worker@login-2, never one
    without a number, and stops none while it works on a task. This is what
    lobbyd-scaling.service runs.

    Exits with 1 when nothing runs, or without a systemd.

    Example: lobbyctl scaling apply --dry-run --config /etc/lobbyd/config.toml
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.scaling_apply import apply  # noqa: PLC0415

    run(apply, data_dir, config, is_dry=dry_run, as_json=as_json)
