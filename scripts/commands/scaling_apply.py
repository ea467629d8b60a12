"""`lobbyctl scaling apply`: systemd starts and stops workers as operations decides."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from redis.asyncio import Redis

from runtime import notify
from runtime.daemon import EXIT_ERROR
from runtime.waiting import until
from scripts.commands.scaler import EVERY_S, CannotAct, Scaler
from scripts.commands.system import with_redis
from scripts.commands.systemd import Systemd

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def apply(data_dir: Path, config_file: Path | None, *, is_dry: bool, as_json: bool) -> int:
    """Follow decisions until a signal. Answers the exit code; raises ConfigError."""

    def say(text: str, style: str = "") -> None:
        print(json.dumps({"says": text}, ensure_ascii=False) if as_json else text, flush=True)

    async def work(redis: Redis) -> int | None:
        driver = Systemd()
        try:
            await driver.workers("login")
        except CannotAct as error:
            print(f"There is no systemd to be asked: {error}", file=sys.stderr)
            return EXIT_ERROR
        name = f"lobbyctl scaling apply (process {os.getpid()} of {os.uname().nodename})"
        scaler = Scaler(redis, driver, say, name, is_dry=is_dry)
        ending = asyncio.Event()
        for number in ENDING_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        say("Tells what it would do." if is_dry else "Follows.")
        notify.ready()
        await until(ending, _follow(scaler))
        notify.stopping()
        return None

    return await with_redis(data_dir, config_file, work)


async def _follow(scaler: Scaler) -> None:
    while True:
        await scaler.look()
        notify.watchdog()
        await asyncio.sleep(EVERY_S)
