"""`lobbyctl keys`: what an operator types to see and change which key encrypts what is stored.

As in `main`, each command imports what it needs when it runs.
"""

import typer

from scripts.commands import DEFAULT_DATA_DIR
from scripts.commands.options import AsJson, DataDir, SystemConfig

app = typer.Typer(help="See and change which key encrypts what is stored.", no_args_is_help=True)


@app.command("list")
def show(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None) -> None:
    """Show every key, and how many stored fields each encrypts.

    Example: lobbyctl keys list --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import keys_change  # noqa: PLC0415

    run(keys_change.show, data_dir, config, as_json=as_json)


@app.command("rotate")
def rotate(
    as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Make a new key, and encrypt with it all that is stored.

    Everything goes on meanwhile. Every process uses the new key within
    5 seconds; what older keys encrypted can still be read.

    Cut short, it is finished by `lobbyctl keys reencrypt`.

    Example: lobbyctl keys rotate
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import keys_change  # noqa: PLC0415

    run(keys_change.rotate, data_dir, config, as_json=as_json)


@app.command("reencrypt")
def reencrypt(
    as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR, config: SystemConfig = None
) -> None:
    """Encrypt with the current key what older keys encrypted.

    Exits with 1 when something stored cannot be deciphered, and names it.

    Example: lobbyctl keys reencrypt --json
    """
    from runtime.daemon import main as run  # noqa: PLC0415
    from scripts.commands import keys_change  # noqa: PLC0415

    run(keys_change.reencrypt, data_dir, config, as_json=as_json)
