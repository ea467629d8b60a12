"""`lobbyctl queue`: what an operator types to see what waits in queues, and to clear it.

As in `main`, each command imports what it needs when it runs.
"""

from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, IsSure, SystemConfig

DEFAULT_PEEK = 10
MOST_PEEK = 1_000

app = typer.Typer(help="See what waits in queues, and clear it.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue id, as `ls` shows it.")]


@app.command("ls")
def ls(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None) -> None:
    """Show every queue: its length, what is worked on, and its dead letters.

    Exits with 1 when nothing runs, or when its Redis cannot be reached.

    Example: lobbyctl queue ls --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import queue_look  # noqa: PLC0415

    run(queue_look.ls, data_dir, config, as_json=as_json)


@app.command("peek")
def peek(
    name: Name,
    most: Annotated[
        int, typer.Option("-n", metavar="N", min=1, max=MOST_PEEK, help="How many at most.")
    ] = DEFAULT_PEEK,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show the oldest entries: what each is, from whom, and who holds it.

    What players sent is not shown. Takes nothing out of the queue.

    Exits with 1 when there is no such queue.

    Example: lobbyctl queue peek login_queue:normal -n 3
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import queue_look  # noqa: PLC0415

    run(queue_look.peek, data_dir, config, name, most, as_json=as_json)


@app.command("purge")
def purge(
    name: Name,
    yes: IsSure = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Throw away what waits in a queue.

    Asks first. What a worker holds stays. Queues of jobs, tasks and
    events are refused: what they hold was promised to somebody. Dead
    letters are dropped with `lobbyctl dead-letters`.

    Exits with 1 when the answer is no, when it is refused, or when
    there is no such queue.

    Example: lobbyctl queue purge ranking_queue:low --yes
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import queue_change  # noqa: PLC0415

    run(queue_change.purge, data_dir, config, name, is_sure=yes, as_json=as_json)
