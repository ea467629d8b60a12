"""`lobbyctl ranking`: what an operator types about boards and what SQL says of them.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="Hold boards against SQL, remove who cheated, freeze the past.", no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="USER", help="A username.")]


@app.command("rebuild")
def rebuild(
    as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Make the boards again from SQL, after Redis was lost.

    Players are served meanwhile, and their scores counted. Cut short,
    it can be begun again.

    Example: lobbyctl ranking rebuild --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import ranking_truth  # noqa: PLC0415

    run(ranking_truth.rebuild, data_dir, config, as_json=as_json)


@app.command("verify")
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Set what differs to what SQL says.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Say where the boards and SQL differ.

    Exits with 1 when they do, also when that was repaired.

    Example: lobbyctl ranking verify --repair
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import ranking_truth  # noqa: PLC0415

    run(ranking_truth.verify, data_dir, config, is_to_repair=repair, as_json=as_json)


@app.command("remove")
def remove(
    user: User,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit log.")] = "",
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Take a player off every board, past ones too, and keep them off.

    Their scores are kept on being recorded: `restore` brings all back.

    Example: lobbyctl ranking remove bora --reason "a macro"
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import ranking_truth  # noqa: PLC0415

    run(ranking_truth.remove, data_dir, config, user, reason, as_json=as_json)


@app.command("restore")
def restore(
    user: User,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Put a removed player back, with all that they have reached.

    Example: lobbyctl ranking restore bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import ranking_truth  # noqa: PLC0415

    run(ranking_truth.restore, data_dir, config, user, as_json=as_json)


@app.command("freeze")
def freeze(
    period: Annotated[
        str, typer.Argument(metavar="[PERIOD]", help="20241218, 2024W51 or 202412; frozen again if it is.")
    ] = "",
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Write the boards of periods that are over into SQL now.

    Workers do it by themselves, ten minutes after a period's end.

    Example: lobbyctl ranking freeze 2024W51
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import ranking_truth  # noqa: PLC0415

    run(ranking_truth.freeze, data_dir, config, period, as_json=as_json)
