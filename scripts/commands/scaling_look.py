"""`lobbyctl scaling`: how many workers of each kind there are and should be, and why."""

import json
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from scripts.commands.system import with_redis
from storage.scaling import Decision, Scaling


async def show(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print the newest decisions. Answers the exit code."""

    async def work(redis: Redis) -> None:
        scaling = Scaling(redis)
        decisions, follower = await scaling.decisions(), await scaling.follower()
        if as_json:
            print(json.dumps({kind: msgspec.to_builtins(each) for kind, each in decisions.items()}))
        else:
            console = Console(highlight=False)
            console.print(_table(decisions) if decisions else _nothing())
            console.print(f"\n{follower or 'Nobody'} follows.", markup=False)

    return await with_redis(data_dir, config_file, work)


def _table(decisions: dict[str, Decision]) -> Table:
    table = Table("kind", "now", "wanted", "load", "why", box=None, header_style="bold")
    for kind, each in sorted(decisions.items()):
        wanted = f"[bold]{each.wanted}[/bold]" if each.wanted != each.now else str(each.wanted)
        table.add_row(kind, str(each.now), wanted, f"{each.load:.0%}", each.reason)
    return table


def _nothing() -> str:
    return "Nothing is decided: no operations worker has looked in the last minute."
