"""`lobbyctl alerts`: what is open."""

import json
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from scripts.commands.system import with_redis
from scripts.commands.top_view import open_alerts
from storage.monitoring import Monitoring


async def show(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print the open alerts, the oldest first. Answers the exit code."""

    async def work(redis: Redis) -> None:
        alerts = await open_alerts(Monitoring(redis))
        if as_json:
            print(json.dumps({"alerts": [msgspec.to_builtins(alert) for alert in alerts]}))
            return
        for alert in alerts:
            print(f"{alert.level}  {alert.subject}  {alert.message}")
        if not alerts:
            print("None is open.")

    return await with_redis(data_dir, config_file, work)
