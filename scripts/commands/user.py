"""`lobbyctl user`: what an operator types to see a user, and to say whether and as what they may come in.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

ROLES = ("NORMAL", "PREMIUM", "VIP", "GAME_SERVER", "ADMIN")

app = typer.Typer(help="See users, and say who may come in.", no_args_is_help=True)

Username = Annotated[str, typer.Argument(metavar="USER", help="A username.")]


def _known(role: str) -> str:
    if role.upper() not in ROLES:
        raise typer.BadParameter(f"{role} is no role: use one of {', '.join(ROLES)}.")
    return role.upper()


@app.command("show")
def show(
    user: Username, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Show an account, and where its user is now.

    Exits with 1 when there is no such user.

    Example: lobbyctl user show bora --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import user_look  # noqa: PLC0415

    run(user_look.show, data_dir, config, user, as_json=as_json)


@app.command("disable")
def disable(
    user: Username, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Keep a user out, from now on and until `enable`.

    Their connection is closed within a second, wherever it is;
    their tokens are worth nothing, their place in line is gone.

    Example: lobbyctl user disable bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import user_change  # noqa: PLC0415

    run(user_change.disable, data_dir, config, user, as_json=as_json)


@app.command("enable")
def enable(
    user: Username, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Let a user in again who was disabled.

    Example: lobbyctl user enable bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import user_change  # noqa: PLC0415

    run(user_change.enable, data_dir, config, user, as_json=as_json)


@app.command("kick")
def kick(
    user: Username, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """End a user's stay, on all devices. They may log in again.

    As `disable`, but for that.

    Example: lobbyctl user kick bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import user_change  # noqa: PLC0415

    run(user_change.kick_out, data_dir, config, user, as_json=as_json)


@app.command("role")
def role(
    user: Username,
    role: Annotated[str, typer.Argument(metavar="ROLE", callback=_known, help=f"One of {', '.join(ROLES)}.")],
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Give a user a role.

    It holds for tokens that are made from now on, by a refresh or a login.
    Whoever loses the role ADMIN or GAME_SERVER is kicked out at once.

    Example: lobbyctl user role bora VIP
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import user_change  # noqa: PLC0415

    run(user_change.appoint, data_dir, config, user, role, as_json=as_json)
