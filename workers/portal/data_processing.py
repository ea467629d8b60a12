"""The kind `data_processing`: declared operations on a table, in a process of its own.

Result: `{rowCount, columns, rows}`, or for what is too large for a message `{rowCount, columns, resultFile}`,
a file of the user's in the format of the source. Its name is the task's, so doing it twice makes one file.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import msgspec

from protocol.messages.processing import Format, Operation, Source
from storage.files import QuotaExceeded
from workers.portal import crunching
from workers.portal.crunching import Found, Order
from workers.portal.kinds import Context, Limits, Refused
from workers.portal.room import PortalRoom, kinds

COMPRESSED = (
    *(b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"),
    *(b"\x78\x01", b"\x78\x9c", b"\x78\xda"),
)
"""How gzip, zip, Zstandard, bzip2, xz and zlib begin: polars would unpack some of them without a bound."""

FORMATS = {
    ".csv": Format.CSV,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
    ".parquet": Format.PARQUET,
}
MEDIA_TYPES = {
    Format.CSV: "text/csv",
    Format.JSON_LINES: "application/jsonl",
    Format.PARQUET: "application/vnd.apache.parquet",
}
MOST_ANSWER_BYTES = 1_048_576


class DataProcessing(msgspec.Struct, frozen=True):
    """Where the rows come from, and what is done with them."""

    source: Source
    operation: Operation


async def undo(context: Context[PortalRoom], task: DataProcessing) -> None:
    """Remove the result's file."""
    found = await context.room.files.get(context.task_id)
    if found is not None:
        await context.room.files.remove(found)


@kinds.kind("data_processing", DataProcessing, Limits(concurrency=2, time_limit_s=600), undo)
async def process_data(context: Context[PortalRoom], task: DataProcessing) -> dict[str, object]:
    """Fetch the rows, do the operation, keep what is large. Raises Refused for what cannot be done."""
    with tempfile.TemporaryDirectory(prefix="lobbyd-processing-") as name:
        folder = Path(name)
        kind = await _fetch(context, task.source, folder / crunching.SOURCE)
        context.progress(10)
        settings = context.room.config.portal
        order = Order(kind, task.operation, settings.processing_memory_bytes, settings.processing_time_s)
        found = await crunch_apart(order, folder)
        context.progress(90)
        result: dict[str, object] = {"rowCount": found.row_count, "columns": found.columns}
        if found.rows is not None:
            return {**result, "rows": found.rows}
        return {**result, "resultFile": await _keep(context, folder / crunching.RESULT, kind)}


async def _fetch(context: Context[PortalRoom], source: Source, path: Path) -> Format:
    """Bring the rows into a file. Answers its format."""
    if source.rows is not None:
        lines = b"\n".join(map(msgspec.json.encode, source.rows)) + b"\n"
        await asyncio.to_thread(path.write_bytes, lines)
        return Format.JSON_LINES
    file = await context.room.files.get(source.file_id or "")
    if file is None or file.user_id != context.user_id or file.stored_at is None:
        raise Refused(f"You have no file {source.file_id}.")
    kind = source.format or FORMATS.get(Path(file.file_name).suffix.lower())
    if kind is None:
        raise Refused(f"`format` is needed: it cannot be told by the name {file.file_name}.")
    head = await context.room.objects.fetch(file.object_name, path)
    if head.startswith(COMPRESSED):
        raise Refused("Compressed files are not taken: unpack it first.")
    return kind


async def crunch_apart(order: Order, folder: Path) -> Found:
    """Have the operation done by a process of its own. Raises Refused."""
    process = await asyncio.create_subprocess_exec(
        # -P: a file in the current directory must not pass for one of our modules, or of polars'.
        *(sys.executable, "-P", "-m", crunching.__name__, str(folder)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=MOST_ANSWER_BYTES,
        env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"},
    )
    try:
        async with asyncio.timeout(order.time_s):
            answer = await _ask(process, msgspec.json.encode(order) + b"\n")
    except TimeoutError:
        raise Refused(f"It took longer than {order.time_s:g} s.") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if not answer.endswith(b"\n"):
        raise Refused(
            f"It needs more than {order.memory_bytes:,} bytes of memory, or more time than it may have."
        )
    found = msgspec.json.decode(answer, type=Found)
    if found.refused is not None:
        raise Refused(found.refused)
    return found


async def _ask(process: Process, order: bytes) -> bytes:
    """Send the order; the answer is one line, or cut short where the process died."""
    assert process.stdin is not None, "a pipe"
    assert process.stdout is not None, "a pipe"
    with contextlib.suppress(ConnectionError):
        process.stdin.write(order)
        await process.stdin.drain()
    return await process.stdout.readline()


async def _keep(context: Context[PortalRoom], path: Path, kind: Format) -> dict[str, object]:
    """Make the result a file of the user's. Raises Refused where there is no room for it."""
    files, size = context.room.files, os.stat(path).st_size
    try:
        await files.reserve(context.task_id, context.user_id, f"result.{kind.value}", size)
    except QuotaExceeded:
        raise Refused(f"Your files have no room for the result, which has {size:,} bytes.") from None
    file = await files.get(context.task_id)
    assert file is not None, "just reserved"
    digest = await context.room.objects.put_file(file.object_name, path)
    await files.stored(context.task_id, digest, MEDIA_TYPES[kind])
    return {"fileId": file.file_id, "format": kind.value, "size": size, "path": file.object_name}
