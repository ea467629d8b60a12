"""`lobbyctl group`: what an operator types to see and change groups and who belongs to them.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See and change groups, and who belongs to them.", no_args_is_help=True)

GroupId = Annotated[str, typer.Argument(metavar="GROUP", help="A group's id, such as VIP_Users.")]
Users = Annotated[list[str], typer.Argument(metavar="USER...", help="Usernames.")]


@app.command("list")
def list_all(
    as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Show all groups, what they permit and how many belong to each.

    Example: lobbyctl group list --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import group_look  # noqa: PLC0415

    run(group_look.list_all, data_dir, config, as_json=as_json)


@app.command("show")
def show(
    group_id: GroupId,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show one group, and the first 100 who belong to it.

    Example: lobbyctl group show VIP_Users
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import group_look  # noqa: PLC0415

    run(group_look.show, data_dir, config, group_id, as_json=as_json)


@app.command("put")
def put(
    group_id: GroupId,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What people call it.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    permissions: Annotated[
        str | None, typer.Option(metavar="A,B", help='What belonging to it permits; "" for nothing.')
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Make a group, or change one that there is: what is not given stays.

    Example: lobbyctl group put testers --name Testers --permissions queue_priority
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import group_change  # noqa: PLC0415

    run(group_change.put, data_dir, config, group_id, (name, description, permissions), as_json=as_json)


@app.command("delete")
def delete(
    group_id: GroupId,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have a group no more; who belonged to it does no more.

    Example: lobbyctl group delete testers
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import group_change  # noqa: PLC0415

    run(group_change.delete, data_dir, config, group_id, as_json=as_json)


@app.command("add")
def add(
    group_id: GroupId,
    users: Users,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have users belong to a group, at once, everywhere.

    Example: lobbyctl group add VIP_Users bora dami
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import group_change  # noqa: PLC0415

    run(group_change.add, data_dir, config, group_id, users, as_json=as_json)


@app.command("remove")
def remove(
    group_id: GroupId,
    users: Users,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have users belong to a group no more, at once, everywhere.

    Example: lobbyctl group remove VIP_Users bora
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import group_change  # noqa: PLC0415

    run(group_change.remove, data_dir, config, group_id, users, as_json=as_json)
