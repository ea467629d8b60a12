"""`lobbyctl drain`: have one process finish what it has accepted and end, and wait until it has."""

import asyncio
import json
import sys
import time
from pathlib import Path

from redis.asyncio import Redis

from runtime.daemon import EXIT_ERROR
from scripts.commands.asking import says_yes
from scripts.commands.operators import operator
from scripts.commands.status import ALIVE
from scripts.commands.system import with_redis
from storage.dismissals import Dismissals
from storage.servers import Holder, Servers

LOOK_AGAIN_S = 0.2
NOTICED_WITHIN_S = 60.0
"""A process looks with every heartbeat; one that is READY after so long hangs, or is of an older release."""

SETTLED_WITHIN_S = 5.0
"""The status manager writes a process's last words a moment after the process has given up its name."""

UNKNOWN = "UNKNOWN"
"""How a process has ended when nobody has written that down, as when it was the status manager itself."""


class Undrained(Exception):
    """The process does not end, or there is none; the text tells people why."""


async def drain(
    data_dir: Path, config_file: Path | None, server_id: str, *, is_sure: bool, as_json: bool
) -> int:
    """Drain one process, telling how it goes. Answers the exit code."""

    async def work(redis: Redis) -> int | None:
        servers, dismissals = Servers(redis), Dismissals(redis)
        try:
            await _check(servers, dismissals, server_id)
            if not is_sure and not says_yes(await _question(servers, server_id)):
                return EXIT_ERROR
            began_s = time.monotonic()
            dismissed = await dismissals.dismiss(server_id, operator())
            if dismissed is None:
                raise Undrained(f"{server_id} has just ended by itself.")
            state = await _ended(servers, dismissals, server_id, dismissed)
        except Undrained as error:
            print(error, file=sys.stderr)
            return EXIT_ERROR
        took_s = round(time.monotonic() - began_s, 1)
        if as_json:
            found = {"serverId": server_id, "pid": dismissed.pid, "statusCode": state, "tookSec": took_s}
            print(json.dumps(found))
        else:
            how = f": {state}" if state != UNKNOWN else ", and no status manager is there to write down how"
            print(f"{server_id} has ended after {took_s} s{how}.")
        return None if state not in {"ERROR", "DOWN"} else EXIT_ERROR

    return await with_redis(data_dir, config_file, work)


async def _check(servers: Servers, dismissals: Dismissals, server_id: str) -> None:
    """Raises Undrained unless a live process bears the id."""
    if await dismissals.holder(server_id) is not None:
        return
    known = await servers.all()
    if server_id in known:
        raise Undrained(f"{server_id} is not alive: it is {known[server_id].get('statusCode', '?')}.")
    alive = [name for name, fields in known.items() if fields.get("statusCode") in ALIVE]
    raise Undrained(f"There is no process {server_id}. There are {', '.join(alive) or 'none'}.")


async def _question(servers: Servers, server_id: str) -> str:
    known = await servers.all()
    kind = known.get(server_id, {}).get("serverType")
    others = sum(
        fields.get("serverType") == kind and fields.get("statusCode") == "READY" and name != server_id
        for name, fields in known.items()
    )
    connections = known.get(server_id, {}).get("connections", "0")
    held = f"{server_id} holds {connections} connections, which are told to go elsewhere. "
    return f"{held if kind == 'SOCKET' else ''}{others} more like it READY. Drain {server_id}?"


async def _ended(servers: Servers, dismissals: Dismissals, server_id: str, dismissed: Holder) -> str:
    """Wait until the process has ended, telling of it. Answers its last state. Raises Undrained."""
    began_s, told = time.monotonic(), ""
    while await dismissals.holder(server_id) == dismissed:
        known = await servers.get(server_id)
        state, left = known.get("statusCode", "?"), known.get("connections")
        news = f"{server_id} {state}" + (f", {left} connections" if left is not None else "")
        if news != told:
            print(news, file=sys.stderr)
            told = news
        if state == "READY" and time.monotonic() - began_s > NOTICED_WITHIN_S:
            raise Undrained(
                f"{server_id} has not begun to drain within {NOTICED_WITHIN_S:g} s: it hangs, or is of a "
                f"release that does not know how. End process {dismissed.pid} of {dismissed.host} by hand."
            )
        await asyncio.sleep(LOOK_AGAIN_S)
    return await _last_state(servers, server_id, dismissed)


async def _last_state(servers: Servers, server_id: str, dismissed: Holder) -> str:
    until_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        known = await servers.get(server_id)
        state = known.get("statusCode", "?")
        if known.get("bootId") != dismissed.boot_id:
            return "STOPPED"  # another life of it has been started since
        if state not in ALIVE:
            return state
        if time.monotonic() > until_s:
            return UNKNOWN
        await asyncio.sleep(LOOK_AGAIN_S)
