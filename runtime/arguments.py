"""The command line that every daemon shares: where its settings come from."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from runtime.config import load
from runtime.settings import Config


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that every daemon takes."""
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    made.add_argument("--config", type=Path, metavar="FILE", help="read settings from this file")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; may be repeated",
    )
    return made


def configuration(arguments: argparse.Namespace, overrides: Sequence[str] = ()) -> Config:
    """The settings that the parsed arguments ask for. Raises ConfigError."""
    return load(arguments.config, environ=os.environ, overrides=[*overrides, *arguments.set])
