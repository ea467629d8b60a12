"""What an operator types: the commands of `lobbyctl` and their options.

Each command imports what it needs when it runs, so that `lobbyctl --help` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.admission import app as admission
from scripts.commands.audit import app as audit
from scripts.commands.dead_letters import app as dead_letters
from scripts.commands.file import app as file
from scripts.commands.group import app as group
from scripts.commands.keys import app as keys
from scripts.commands.matching import app as matching
from scripts.commands.options import AsJson, DataDir, IsSure, SystemConfig
from scripts.commands.policy import app as policy
from scripts.commands.queue import app as queue
from scripts.commands.ranking import app as ranking
from scripts.commands.scaling import app as scaling
from scripts.commands.task import app as task
from scripts.commands.user import app as user

DEFAULT_PLAYERS = 200
MOST_PLAYERS = 10_000
MOST_NODES = 99

app = typer.Typer(
    name="lobbyctl",
    help="Run lobbyd on this machine, and look at a lobbyd that runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(admission, name="admission")
app.add_typer(audit, name="audit")
app.add_typer(group, name="group")
app.add_typer(policy, name="policy")
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(file, name="file")
app.add_typer(keys, name="keys")
app.add_typer(queue, name="queue")
app.add_typer(ranking, name="ranking")
app.add_typer(scaling, name="scaling")
app.add_typer(task, name="task")
app.add_typer(user, name="user")
app.add_typer(matching, name="matching")


@app.callback()
def lobbyctl() -> None:
    """Run lobbyd on this machine, and look at a lobbyd that runs."""


@app.command()
def up(  # noqa: PLR0913, PLR0917 - an option is an argument
    demo: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST_PLAYERS, help="Players of the demo crowd.")
    ] = DEFAULT_PLAYERS,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="No demo crowd.")] = False,
    host: Annotated[str | None, typer.Option(metavar="H", help="Address that the nodes listen on.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="P", min=0, max=65_535, help="Port of SOCK001; SOCK002 has the next. 0: free ones."
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(metavar="K", min=1, max=MOST_NODES, help="Socket nodes.")] = 1,
    workers: Annotated[
        list[str] | None, typer.Option(metavar="KIND=N", help="Workers of a kind, such as login=3.")
    ] = None,
    autoscale: Annotated[
        bool, typer.Option("--autoscale", help="Start and end workers by the load; see `lobbyctl scaling`.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object once all is up, and words on stderr.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --autoscale: only tell what would be done, and why.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings; default ./config.toml, if it is there.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting.")
    ] = None,
) -> None:
    """Start everything on this machine, and keep it alive until Ctrl-C.

    Starts Valkey and SQLite where no other stores are configured,
    then the workers and the nodes, and shows a crowd coming in.

    Exits with 0 after a clean stop, 1 after a failure,
    2 for a wrong setting, 3 when lobbyd runs already.

    Example: lobbyctl up --no-demo --nodes 2 --workers login=3
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.plan import Options  # noqa: PLC0415
    from scripts.commands.up import live  # noqa: PLC0415

    options = Options(
        players=0 if no_demo else demo,
        host=host,
        port=port,
        nodes=nodes,
        workers=tuple(workers or ()),
        data_dir=data_dir,
        config=config,
        overrides=tuple(overrides or ()),
        autoscale=autoscale,
        as_json=as_json,
        dry_run=dry_run,
    )
    run(live, options)


@app.command()
def status(
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show the processes, the queues and the admission of a running system.

    Exits with 1 when nothing runs, or when its Redis cannot be reached.

    Example: lobbyctl status --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.status import show  # noqa: PLC0415

    run(show, data_dir, config, as_json=as_json)


@app.command()
def top(data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None) -> None:
    """Watch a running system, and act: pause, rate, drain, requeue.

    Each action asks first, and is a line in the audit log. Tab goes from
    table to table, the keys are at the foot of the screen.

    Exits with 1 when nothing runs, when its Redis cannot be reached, or
    without a terminal: programs read `lobbyctl status --json`.

    Example: lobbyctl top --config /etc/lobbyd/config.toml
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.top import top  # noqa: PLC0415

    run(top, data_dir, config)


@app.command()
def alerts(
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Show the alerts that are open, the oldest first.

    Exits with 1 when nothing runs, or when its Redis cannot be reached.

    Example: lobbyctl alerts --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.alerts import show  # noqa: PLC0415

    run(show, data_dir, config, as_json=as_json)


@app.command()
def doctor(
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Find what is wrong with an installation, and say what to do.

    Looks at the stores, the clock, the master secret, the processes,
    their ports, certificates and limits, and the queues. Changes
    nothing.

    Exits with 1 when something is wrong, 0 when nothing is, or only
    will be.

    Example: lobbyctl doctor --config /etc/lobbyd/config.toml
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.doctor import doctor  # noqa: PLC0415

    run(doctor, data_dir, config, as_json=as_json)


@app.command()
def drain(
    server_id: Annotated[str, typer.Argument(metavar="PROCESS", help="Such as SOCK001 or login-2.")],
    yes: IsSure = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    config: SystemConfig = None,
) -> None:
    """Have one process finish what it has accepted and end, wherever it runs.

    It does what SIGTERM would make it do, with its next heartbeat.
    Waits until it has ended, and says how it goes. Neither systemd nor
    `lobbyctl up` starts it again. Ctrl-C ends the waiting, not the
    draining.

    Exits with 1 when there is no such process, when it is not alive,
    when it does not end well, or when the answer is no.

    Example: lobbyctl drain SOCK001 --yes
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands.drain import drain  # noqa: PLC0415

    run(drain, data_dir, config, server_id, is_sure=yes, as_json=as_json)


@app.command()
def install(
    prefix: Annotated[
        Path, typer.Option(metavar="P", help="Units go to P/lib; settings to /etc, or P/etc elsewhere.")
    ] = Path("/usr/local"),
    as_json: AsJson = False,
) -> None:
    """Lay systemd units, and first settings where there are none.

    Overwrites units, never settings or secrets, and starts nothing: it
    says what comes next. See docs/operations.md.

    Exits with 1 when a file cannot be written, 2 where the units could
    not work.

    Example: lobbyctl install --prefix /usr/local
    """
    from scripts.commands.install import lay_and_tell  # noqa: PLC0415

    raise typer.Exit(lay_and_tell(prefix, as_json=as_json))


def main() -> None:
    """Run `lobbyctl`. What cannot be printed is said on stderr, unless nobody reads any more."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Python tries once more at its exit, and says so in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"This cannot be done: {error}", file=sys.stderr)
        sys.exit(1)
