"""What `lobbyctl up` is to run: the command line and the settings, checked before anything is started."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.config import ConfigError, load
from runtime.settings import Config
from scripts.commands.data_dir import DataDir
from workers.__main__ import KINDS

CONFIG_FILE = Path("config.toml")
STATUS = "status"
MOST_WORKERS = 64


@dataclass(frozen=True)
class Options:
    """What the command line says. `players` is 0 for no demo; None is left to the settings."""

    players: int
    host: str | None
    port: int | None
    nodes: int
    workers: Sequence[str]
    data_dir: Path
    config: Path | None
    overrides: Sequence[str]
    autoscale: bool = False
    as_json: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Plan:
    """What to run. `ports` has one for each node, `workers` the number of each kind.

    `overrides` are the texts of `--set`, by setting.
    """

    config: Config
    config_file: Path | None
    overrides: Mapping[str, str]
    data_dir: DataDir
    host: str
    ports: Sequence[int]
    workers: Mapping[str, int]
    players: int
    autoscale: bool
    as_json: bool
    dry_run: bool


def plan(options: Options) -> Plan:
    """Read the settings and check the options. Raises ConfigError."""
    if options.dry_run and not options.autoscale:
        raise ConfigError("--dry-run: tells what --autoscale would do; give both")
    config_file = options.config or (CONFIG_FILE if CONFIG_FILE.exists() else None)
    config = load(config_file, environ=os.environ, overrides=options.overrides)
    overrides = (override.partition("=") for override in options.overrides)
    return Plan(
        config=config,
        config_file=config_file,
        overrides={name.strip(): text.strip() for name, _, text in overrides},
        data_dir=DataDir(options.data_dir),
        host=config.socketd.host if options.host is None else options.host,
        ports=_ports(config.socketd.port if options.port is None else options.port, options.nodes),
        workers=_worker_counts(options.workers, embedded=not config.redis.url),
        players=options.players,
        autoscale=options.autoscale,
        as_json=options.as_json,
        dry_run=options.dry_run,
    )


def socket_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def check_ports(plan: Plan) -> None:
    """See that the nodes will be able to listen. Raises ConfigError."""
    for port in plan.ports:
        try:
            server = await asyncio.get_running_loop().create_server(asyncio.Protocol, plan.host, port)
        except OSError as error:
            where = socket_address(plan.host, port)
            cause = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ConfigError(
                f"{where}: a node cannot listen there: {cause}. Choose with --host and --port."
            ) from None
        server.close()
        await server.wait_closed()


def _ports(first: int, nodes: int) -> Sequence[int]:
    if first == 0:
        return [0] * nodes
    last = first + nodes - 1
    if last > 65_535:
        raise ConfigError(f"--port {first}: {nodes} nodes would need ports up to {last}; the last is 65535")
    return range(first, last + 1)


def _worker_counts(given: Sequence[str], embedded: bool) -> dict[str, int]:
    counts = dict.fromkeys(sorted(KINDS), 1)
    for text in given:
        kind, _, number = text.partition("=")
        if kind not in counts:
            raise ConfigError(f"--workers {text}: expected KIND=N, with KIND one of {', '.join(counts)}")
        if not (number.isascii() and number.isdigit() and int(number) <= MOST_WORKERS):
            raise ConfigError(f"--workers {text}: expected {kind}=N, with N from 0 to {MOST_WORKERS}")
        counts[kind] = int(number)
    if counts[STATUS] == 0 and embedded:
        raise ConfigError(f"--workers {STATUS}=0: at least one must keep the status of the processes")
    return counts
