"""`lobbyctl policy`: what an operator types to see, change and try out policies.

As in `main`, each command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See, change and try out who may do what.", no_args_is_help=True)

PolicyId = Annotated[str, typer.Argument(metavar="POLICY", help="A policy's id.")]


@app.command("list")
def list_all(
    as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Show all policies and their rules.

    Example: lobbyctl policy list --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import policy_look  # noqa: PLC0415

    run(policy_look.show, data_dir, config, None, as_json=as_json)


@app.command("show")
def show(
    policy_id: PolicyId,
    as_json: AsJson = True,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Print one policy as JSON, as `put` takes it, with `--json` and without.

    Example: lobbyctl policy show queue-priority
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import policy_look  # noqa: PLC0415

    run(policy_look.show, data_dir, config, policy_id, as_json=as_json)


@app.command("put")
def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy as JSON; - reads it from stdin.")],
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have a policy, in place of the one with the same id.

    It counts at once, everywhere. One that cannot be used is refused, with the
    place of the fault, and exit code 2.

    Example: lobbyctl policy put arena.json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import policy_change  # noqa: PLC0415

    run(policy_change.put, data_dir, config, file, as_json=as_json)


@app.command("remove")
def remove(
    policy_id: PolicyId,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have a policy no more, at once, everywhere.

    Example: lobbyctl policy remove arena
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import policy_change  # noqa: PLC0415

    run(policy_change.remove, data_dir, config, policy_id, as_json=as_json)


@app.command("test")
def try_out(
    user: Annotated[str, typer.Argument(metavar="USER", help="A username.")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help="Such as queue:join.")],
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="Such as queue:login.")],
    context: Annotated[
        str, typer.Option(metavar="JSON", help="What the caller would say: one JSON object.")
    ] = "{}",
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show what would be decided, and from what, without deciding it.

    Example: lobbyctl policy test bora queue:priority queue:portal:VIP
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import policy_look  # noqa: PLC0415

    run(policy_look.try_out, data_dir, config, user, action, resource, context, as_json=as_json)
