"""`lobbyctl ranking rebuild | verify | remove | restore | freeze`: what is done, and what came of it."""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from runtime.config import ConfigError, load
from runtime.daemon import EXIT_ERROR
from runtime.settings import RankingSettings
from scripts.commands.operators import operator
from scripts.commands.plan import CONFIG_FILE
from scripts.commands.ranking_differences import as_json_rows, say_differences
from scripts.commands.system import COMMAND_LIMIT_S, Stores, with_stores
from storage.accounts import AccountNotFound, Accounts
from storage.audit import ALLOWED, NO_POLICY, Audit, Entry
from storage.boards import Board, Boards
from storage.past_boards import PastBoards
from storage.periods import Calendar, Period
from storage.removals import Removals
from storage.scores import Scores
from storage.servers import now_ms
from storage.users import fold
from storage.wire import Wire
from workers.ranking.freezing import FREEZING_LIMIT_S, Freezing
from workers.ranking.truth import Truth

TELL_EVERY_S = 1.0


class Telling:
    """Says on stderr how far it is, once a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told_s = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            print(f"{done:,} of {total:,} {self._what}", file=sys.stderr, flush=True)


async def rebuild(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Make the boards again. Answers the exit code."""

    async def work(truth: Truth, _: Stores) -> None:
        start_s = time.monotonic()
        rows = await truth.rebuild(Telling("rows"))
        took_s = round(time.monotonic() - start_s, 1)
        said = f"The boards have what SQL has: {rows:,} rows in {took_s:,} s."
        print(json.dumps({"rows": rows, "tookSec": took_s}) if as_json else said)

    return await _with_truth(data_dir, config_file, work)


async def verify(data_dir: Path, config_file: Path | None, *, is_to_repair: bool, as_json: bool) -> int:
    """Say where boards and SQL differ. Answers the exit code, an error where they do."""

    calendar = _calendar(_settings(config_file))

    async def work(truth: Truth, stores: Stores) -> int | None:
        freezing = Freezing(PastBoards(stores.database), calendar)
        hot = await truth.verify(Telling("periods"))
        frozen = await freezing.verify(Telling("frozen periods"))
        repaired = await truth.repair(hot) + await freezing.repair(frozen) if is_to_repair else 0
        if repaired:
            await _audit(stores.wire, "ranking:repair", f"{repaired} places", "")
        if as_json:
            print(json.dumps({"differences": as_json_rows(hot, frozen), "repaired": repaired}))
        else:
            say_differences(hot, frozen, repaired)
        return EXIT_ERROR if hot or frozen else None

    return await _with_truth(data_dir, config_file, work, FREEZING_LIMIT_S)


async def remove(data_dir: Path, config_file: Path | None, user: str, reason: str, *, as_json: bool) -> int:
    """Take a player off every board. Answers the exit code."""

    async def work(truth: Truth, stores: Stores) -> None:
        user_id = fold(user)
        await Accounts(stores.database, stores.wire).find(user_id)
        is_new = await truth.remove(user_id, operator(), reason)
        if is_new:
            await _audit(stores.wire, "ranking:remove", f"user:{user_id}", reason)
        said = f"{user_id} is off every board" + (
            "; `lobbyctl ranking restore` brings all back." if is_new else " already."
        )
        print(json.dumps({"userId": user_id, "changed": is_new}) if as_json else said)

    return await _with_truth(data_dir, config_file, work)


async def restore(data_dir: Path, config_file: Path | None, user: str, *, as_json: bool) -> int:
    """Put a removed player back. Answers the exit code."""

    async def work(truth: Truth, stores: Stores) -> None:
        user_id = fold(user)
        await Accounts(stores.database, stores.wire).find(user_id)
        was_removed = await truth.restore(user_id)
        if was_removed:
            await _audit(stores.wire, "ranking:restore", f"user:{user_id}", "")
        said = f"{user_id} is back on the boards." if was_removed else f"{user_id} is not removed."
        print(json.dumps({"userId": user_id, "changed": was_removed}) if as_json else said)

    return await _with_truth(data_dir, config_file, work)


async def freeze(data_dir: Path, config_file: Path | None, period: str, *, as_json: bool) -> int:
    """Freeze one period, or all that are over and not frozen. Answers the exit code."""
    calendar = _calendar(_settings(config_file))
    chosen = _period(calendar, period) if period else None

    async def work(stores: Stores) -> None:
        frozen: list[dict[str, Any]] = []

        def progress(board: Board, players: int) -> None:
            frozen.append({"period": board.period.name, "gameType": board.game_type, "players": players})
            if not as_json:
                print(
                    f"{board.period.name} {board.game_type or '(all games)'}: {players:,} players", flush=True
                )

        freezing = Freezing(PastBoards(stores.database), calendar)
        if chosen is not None:
            await freezing.freeze(chosen, progress)
        else:
            await freezing.freeze_all(now_ms(), progress)
        if as_json:
            print(json.dumps({"frozen": frozen}))
        elif not frozen:
            print("Nothing is to be frozen.")

    return await with_stores(data_dir, config_file, work, FREEZING_LIMIT_S)


async def _with_truth(
    data_dir: Path,
    config_file: Path | None,
    work: Callable[[Truth, Stores], Awaitable[int | None]],
    time_limit_s: float = COMMAND_LIMIT_S,
) -> int:
    settings = _settings(config_file)
    calendar = _calendar(settings)

    async def with_truth(stores: Stores) -> int | None:
        database = stores.database
        boards = Boards(stores.wire, settings.keep_past_s)
        truth = Truth(
            boards, Scores(database), PastBoards(database), Removals(database), calendar, settings.keep_past_s
        )
        try:
            return await work(truth, stores)
        except AccountNotFound as error:
            print(f"There is no user {error}.", file=sys.stderr)
            return EXIT_ERROR

    return await with_stores(data_dir, config_file, with_truth, time_limit_s)


async def _audit(wire: Wire, action: str, resource: str, reason: str) -> None:
    await Audit(wire).append([Entry(operator(), action, resource, ALLOWED, NO_POLICY, reason)])


def _settings(config_file: Path | None) -> RankingSettings:
    """What the workers have, if they read the same file and environment. Raises ConfigError."""
    path = config_file or (CONFIG_FILE if CONFIG_FILE.exists() else None)
    return load(path, environ=os.environ, overrides=[]).ranking


def _calendar(settings: RankingSettings) -> Calendar:
    try:
        return Calendar(settings.time_zone)
    except ValueError as error:
        raise ConfigError(f"ranking.time_zone: {error}") from None


def _period(calendar: Calendar, name: str) -> Period:
    try:
        period = calendar.ending(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not period.is_over(now_ms()):
        raise ConfigError(f"{name}: this period is not over yet")
    return period
