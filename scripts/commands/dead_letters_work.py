"""`lobbyctl dead-letters list | show | requeue | drop`: look at what was given up on, and decide."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from runtime.daemon import EXIT_ERROR
from scripts.commands.operators import operator
from scripts.commands.system import with_redis, with_wire
from scripts.commands.task_telling import tell
from storage import keys
from storage.audit import ALLOWED, Audit, Entry
from storage.queues import Busy, DeadLetters, Letter, QueueServer, UnknownQueue
from storage.tasks import Tasks, TaskStatus
from storage.wire import Wire

MOST_AT_ONCE = 1000
KEPT_S = 86_400.0


async def show_list(
    data_dir: Path, config_file: Path | None, queue_id: str | None, limit: int, *, as_json: bool
) -> int:
    """Print how many there are, or those of a queue. Answers the exit code."""

    async def work(redis: Redis) -> None:
        letters = DeadLetters(redis)
        if queue_id is None:
            counts = await letters.counts(await QueueServer(redis).ids())
            counts = {name: count for name, count in counts.items() if count}
            print(json.dumps({"queues": counts}) if as_json else _counts(counts))
            return
        found = [_facts(letter) for letter in await letters.of(queue_id, limit)]
        if as_json:
            print(json.dumps({"letters": found}, ensure_ascii=False))
        elif not found:
            print(f"{queue_id} has no dead letters.")
        else:
            for each in found:
                print(f"{each['id']}  {each['at']}  {each['taskId'] or ''}  {each['cause']}")

    return await with_redis(data_dir, config_file, work)


async def show(
    data_dir: Path, config_file: Path | None, queue_id: str, letter_id: str, *, as_json: bool
) -> int:
    """Print one with its content. Answers the exit code."""

    async def work(redis: Redis) -> int | None:
        letter = await DeadLetters(redis).get(queue_id, letter_id)
        if letter is None:
            return _missing(queue_id, letter_id)
        found = {**_facts(letter), "message": _readable(letter.message)}
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            for name, value in found.items():
                print(f"{name}: {value}")
        return None

    return await with_redis(data_dir, config_file, work)


async def requeue(
    data_dir: Path,
    config_file: Path | None,
    queue_id: str,
    letter_ids: Sequence[str] | None,
    *,
    as_json: bool,
) -> int:
    """Have them worked on again. Answers the exit code."""

    what = ("requeue", _work_again)
    return await _each(data_dir, config_file, (queue_id, letter_ids), what, as_json=as_json)


async def requeue_all(redis: Redis, wire: Wire, queue_id: str) -> int:
    """Have a queue's dead letters worked on again, MOST_AT_ONCE of them at most. Answers how many.

    Raises StoreAway, Busy and UnknownQueue.
    """
    done = 0
    try:
        for letter in await DeadLetters(redis).of(queue_id, MOST_AT_ONCE):
            done += await _work_again(redis, wire, letter)
    finally:
        await _write_down(redis, "requeue", queue_id, done)
    return done


async def _work_again(redis: Redis, wire: Wire, letter: Letter) -> bool:
    if letter.task_id is None:
        return await DeadLetters(redis).requeue(letter.queue_id, letter.id)
    await tell(wire, letter.user_id, letter.task_id, TaskStatus.PENDING)
    tasks = Tasks(redis, QueueServer(redis), keep_s=KEPT_S)
    task_type = letter.queue_id.removeprefix(keys.TASK_QUEUE_PREFIX)
    return await tasks.requeue(task_type, letter.id) is not None


async def drop(
    data_dir: Path,
    config_file: Path | None,
    queue_id: str,
    letter_ids: Sequence[str] | None,
    *,
    as_json: bool,
) -> int:
    """Throw them away. Answers the exit code."""

    async def away(redis: Redis, _: Wire, letter: Letter) -> bool:
        return await DeadLetters(redis).drop(queue_id, letter.id)

    return await _each(data_dir, config_file, (queue_id, letter_ids), ("drop", away), as_json=as_json)


async def _each(
    data_dir: Path,
    config_file: Path | None,
    which: tuple[str, Sequence[str] | None],
    what: tuple[str, Callable[[Redis, Wire, Letter], Awaitable[bool]]],
    *,
    as_json: bool,
) -> int:
    """Do something to each, and write down who did. What is not there is named on stderr."""
    queue_id, letter_ids = which
    name, do = what

    async def work(redis: Redis, wire: Wire) -> int | None:
        letters, done, code = DeadLetters(redis), 0, None
        if letter_ids is None:
            wanted: list[Letter] = await letters.of(queue_id, MOST_AT_ONCE)
        else:
            found = [(letter_id, await letters.get(queue_id, letter_id)) for letter_id in letter_ids]
            wanted = [letter for _, letter in found if letter is not None]
            for letter_id in [letter_id for letter_id, letter in found if letter is None]:
                code = _missing(queue_id, letter_id)
        try:
            for letter in wanted:
                done += await do(redis, wire, letter)
        except (Busy, UnknownQueue) as error:
            print(error, file=sys.stderr)
            code = EXIT_ERROR
        await _write_down(redis, name, queue_id, done)
        print(json.dumps({"done": done}) if as_json else f"{name}: {done} of {queue_id}.")
        return code

    return await with_wire(data_dir, config_file, work)


async def _write_down(redis: Redis, name: str, queue_id: str, done: int) -> None:
    if done:
        entry = Entry(operator(), f"dead-letters:{name}", queue_id, ALLOWED, "lobbyctl", f"{done}")
        await Audit(redis).append([entry])


def _missing(queue_id: str, letter_id: str) -> int:
    print(f"{queue_id} has no dead letter {letter_id}.", file=sys.stderr)
    return EXIT_ERROR


def _counts(counts: dict[str, int]) -> str:
    return "\n".join(f"{count:>8,}  {name}" for name, count in counts.items()) or "There are no dead letters."


def _facts(letter: Letter) -> dict[str, Any]:
    at = datetime.fromtimestamp(letter.at_ms / 1000, UTC).isoformat(timespec="seconds")
    return {
        "id": letter.id,
        "queue": letter.queue_id,
        "at": at.replace("+00:00", "Z"),
        "cause": letter.cause,
        "deliveries": letter.deliveries,
        "taskId": letter.task_id,
    }


def _readable(message: bytes) -> Any:
    """What is in it, as JSON can show it."""
    try:
        return msgspec.to_builtins(msgspec.msgpack.decode(message), builtin_types=())
    except (msgspec.MsgspecError, TypeError):
        return message.decode(errors="replace")
