"""`lobbyctl task`: what an operator types to see slow work, and to have it done again or given up.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

STATUSES = ("pending", "processing", "completed", "failed", "cancelled")

app = typer.Typer(help="See slow work; have it done again, or give it up.", no_args_is_help=True)

TaskId = Annotated[str, typer.Argument(metavar="TASK", help="A task's id.")]


def _known(status: str | None) -> str | None:
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"{status} is no status: use one of {', '.join(STATUSES)}.")
    return status


@app.command("list")
def show_list(
    status: Annotated[
        str | None,
        typer.Option(metavar="S", callback=_known, help=f"Those of a status: {', '.join(STATUSES)}."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Show so many at most.")] = 50,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show tasks, the newest first, as they were written to the database last.

    Example: lobbyctl task list --status failed --limit 10
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import task_work  # noqa: PLC0415

    run(task_work.show_list, data_dir, config, status, limit, as_json=as_json)


@app.command("show")
def show(
    task: TaskId, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Show a task as it is now.

    Exits with 1 when there is no such task.

    Example: lobbyctl task show task_1734480000000_bora_1
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import task_work  # noqa: PLC0415

    run(task_work.show, data_dir, config, task, as_json=as_json)


@app.command("retry")
def retry(
    task: TaskId, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Have a task done again that was given up on.

    Exits with 1 when there is no such task, or when it is no dead letter: what was refused
    for its input fails again.

    Example: lobbyctl task retry task_1734480000000_bora_1
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import task_work  # noqa: PLC0415

    run(task_work.retry, data_dir, config, task, as_json=as_json)


@app.command("cancel")
def cancel(
    task: TaskId, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Give a task up that is not over; its user is told.

    Exits with 1 when there is no such task, or when it is over.

    Example: lobbyctl task cancel task_1734480000000_bora_1
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import task_work  # noqa: PLC0415

    run(task_work.cancel, data_dir, config, task, as_json=as_json)
