"""`lobbyctl queue purge`: clear what waits, once the operator has seen how much that is."""

import json
import sys
from pathlib import Path

from redis.asyncio import Redis

from runtime.daemon import EXIT_ERROR
from scripts.commands.asking import says_yes
from scripts.commands.operators import operator
from scripts.commands.system import with_redis
from storage.backlogs import Backlogs, KeptQueue
from storage.queues import QueueServer, UnknownQueue


async def purge(data_dir: Path, config_file: Path | None, name: str, *, is_sure: bool, as_json: bool) -> int:
    """Throw away what waits in a queue. Answers the exit code."""

    async def work(redis: Redis) -> int | None:
        question = f"Throw away what waits in {name}, for good?"
        if not is_sure and not says_yes(f"{await _size(redis, name)}{question}"):
            return EXIT_ERROR
        try:
            count = await Backlogs(redis).purge(name, operator())
        except (KeptQueue, UnknownQueue) as error:
            print(error, file=sys.stderr)
            return EXIT_ERROR
        found = {"queueId": name, "purged": count}
        print(json.dumps(found) if as_json else f"{name}: {count:,} thrown away.")
        return None

    return await with_redis(data_dir, config_file, work)


async def _size(redis: Redis, name: str) -> str:
    found = await QueueServer(redis).statistics([name])
    return "".join(
        f"{each.length - each.pending:,} of {each.length:,} entries wait and are held by nobody. "
        for each in found
    )
