"""Options that several commands of `lobbyctl` have."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path, typer.Option(metavar="D", help="Folder of the stores, the logs and endpoints.json.")
]
SystemConfig = Annotated[
    Path | None,
    typer.Option(metavar="FILE", envvar="LOBBYCTL_CONFIG", help="Find the system by this file's redis.url."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
IsSure = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
