"""`lobbyctl`, the operators' command line: runs a whole system on one machine, and shows how one fares."""

from pathlib import Path

DEFAULT_DATA_DIR = Path(".lobbyd")
"""Where every command expects the data directory when it is not told another one."""
