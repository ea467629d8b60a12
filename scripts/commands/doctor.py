"""`lobbyctl doctor`: what is wrong with an installation, and what to do about it."""

import os
from pathlib import Path

from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.config import load
from runtime.daemon import EXIT_CLEAN, EXIT_ERROR
from runtime.logging import redact_text
from runtime.settings import Config
from scripts.commands import doctor_stores as stores
from scripts.commands.doctor_found import Found, State, wrong
from scripts.commands.doctor_machine import machine
from scripts.commands.doctor_system import as_json as encoded, is_well, system
from scripts.commands.system import NothingRuns, database_url, redis_url
from storage.connections import connect
from storage.errors import StoreAway

COLOURS = {State.OK: "green", State.WARNING: "yellow", State.WRONG: "bold red"}

CHECK_WIDTH = 24


async def doctor(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Look at everything and say how it stands. Answers the exit code; raises ConfigError."""
    config = load(config_file, environ=os.environ, overrides=[])
    found = await _examine(data_dir, config_file, config)
    if as_json:
        print(encoded(found).decode())
    else:
        _print(found)
    return EXIT_CLEAN if is_well(found) else EXIT_ERROR


async def _examine(data_dir: Path, config_file: Path | None, config: Config) -> list[Found]:
    try:
        url, sql = redis_url(data_dir, config_file), database_url(data_dir, config_file)
    except NothingRuns as error:
        return [wrong("system", str(error), "`lobbyctl up`, or --config FILE that names the stores.")]
    found = machine(data_dir, config_file, config, sql)
    found.append(await stores.database(sql))
    has_schema = found[-1].state is State.OK
    found.append(await stores.secret(data_dir, config_file, sql if has_schema else None))
    about_redis: list[Found] = []
    try:
        async with connect(url) as redis:
            about_redis = await stores.redis(redis, url)
            return [*about_redis, *found, *await system(redis, config)]
    except (StoreAway, RedisError, ValueError) as error:
        start = "Start it, or correct redis.url; processes come back by themselves once it is there."
        # One that has told of itself is there, and yet does not do what is asked of it.
        check, start = ("redis work", "See what else is wrong with it.") if about_redis else ("redis", start)
        return [*about_redis, wrong(check, f"{redact_text(url)}: {redact_text(str(error))}", start), *found]


def _print(found: list[Found]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(max_width=CHECK_WIDTH, overflow="fold")
    table.add_column()
    for each in found:
        what = Text(each.what)
        if each.do:
            what.append(f"\n→ {each.do}", "cyan")
        table.add_row(Text(each.state, COLOURS[each.state]), Text(each.check, "bold"), what)
    console = Console(highlight=False)
    console.print(table)
    count = sum(each.state is State.WRONG for each in found)
    console.print(f"\n{count} of {len(found)} things are wrong." if count else "\nNothing is wrong.")
