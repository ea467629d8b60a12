"""The process that does one data processing: `python -m workers.portal.crunching FOLDER`, its order on stdin.

It limits itself before it looks at the data: memory, processor time and the size of what it writes. It ends
when its stdin does, so it does not outlive its worker. It prints one JSON object: what it found, or what is
wrong.
"""

import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from protocol.messages.processing import (
    Aggregate,
    Aggregation,
    Comparison,
    Filter,
    Format,
    Operation,
)

MOST_INLINE_BYTES = 65_536
MOST_INLINE_ROWS = 1000
MOST_INLINE_VALUES = 10_000
"""What a frame can take of a result; a larger one is a file."""

SOURCE, RESULT = "source", "result"
THREADS = "2"


class Order(msgspec.Struct, frozen=True):
    """What is to be done, and what it may take."""

    format: Format
    operation: Operation
    memory_bytes: int
    time_s: float


class Found(msgspec.Struct, frozen=True):
    """What came of it: `rows` unless they are too many, `refused` where it cannot be done, and why."""

    row_count: int = 0
    columns: list[str] = []
    rows: list[dict[str, Any]] | None = None
    refused: str | None = None


def main() -> int:
    """Read the order, do it, print what came of it. Answers the exit code."""
    order = msgspec.json.decode(_read_line(), type=Order)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    _limit(order)
    os.environ["POLARS_MAX_THREADS"] = THREADS
    found = crunch(order, Path(sys.argv[1]))
    os.write(sys.stdout.fileno(), msgspec.json.encode(found) + b"\n")
    return 0


def crunch(order: Order, folder: Path) -> Found:
    """Do the operation on the folder's source; its result is written beside it."""
    import polars as pl  # noqa: PLC0415 - limited by then

    source, result = folder / SOURCE, folder / RESULT
    try:
        frame = plan(_scan(source, order.format), order.operation)
        _sink(frame, result, order.format)
        written = _scan(result, order.format) if result.stat().st_size else None
        count = 0 if written is None else int(written.select(pl.len()).collect().item())
        columns = frame.collect_schema().names()
        if len(msgspec.json.encode(columns)) > MOST_INLINE_BYTES:
            return Found(refused=f"The names of its {len(columns):,} columns are too long for a message.")
        if count > MOST_INLINE_ROWS or count * len(columns) > MOST_INLINE_VALUES:
            return Found(count, columns)
        rows = [] if written is None else written.collect().to_dicts()
        is_small = len(msgspec.json.encode(rows)) <= MOST_INLINE_BYTES
        return Found(count, columns, rows if is_small else None)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        return Found(refused=f"{type(error).__name__}: {error}".partition("\n")[0][:300])


def plan(frame: Any, operation: Operation) -> Any:
    """The operation on a lazy frame. Raises polars' ColumnNotFoundError for a column that is not there."""
    import polars as pl  # noqa: PLC0415

    for each in operation.filter:
        frame = frame.filter(_compare(each))
    if operation.aggregate:
        figures = [_aggregate(each) for each in operation.aggregate]
        groups = [_column(name) for name in operation.group_by]
        frame = frame.group_by(groups).agg(figures) if groups else frame.select(figures)
    if operation.sort:
        frame = frame.sort(
            [_column(each.column) for each in operation.sort],
            descending=[each.descending for each in operation.sort],
            nulls_last=True,
        )
    if operation.limit is not None:
        frame = frame.head(operation.limit)
    assert isinstance(frame, pl.LazyFrame)
    return frame


def _column(name: str) -> Any:
    """A column by its exact name: in `pl.col` a name such as `^a.*$` is a pattern."""
    from polars import selectors  # noqa: PLC0415

    return selectors.by_name(name).as_expr()


def _compare(each: Filter) -> Any:
    import polars as pl  # noqa: PLC0415

    column, value = _column(each.column), each.value
    if each.op is Comparison.NULL:
        return column.is_null()
    if each.op is Comparison.NOT_NULL:
        return column.is_not_null()
    if each.op is Comparison.IN:
        return column.is_in(value)
    if each.op is Comparison.CONTAINS:
        return column.str.contains(pl.lit(str(value)), literal=True)
    return getattr(column, each.op.value)(pl.lit(value))


def _aggregate(each: Aggregate) -> Any:
    import polars as pl  # noqa: PLC0415

    name = each.name or "_".join(filter(None, (each.column, each.function.value)))
    if each.column is None:
        return pl.len().alias(name)
    column = _column(each.column)
    if each.function is Aggregation.DISTINCT:
        return column.n_unique().alias(name)
    if each.function is Aggregation.PERCENTILE:
        assert each.percentile is not None, "checked by Aggregate"
        named = each.name or f"{each.column}_p{each.percentile:g}"
        return column.quantile(each.percentile / 100, interpolation="linear").alias(named)
    return getattr(column, each.function.value)().alias(name)


def _scan(path: Path, kind: Format) -> Any:
    import polars as pl  # noqa: PLC0415

    if kind is Format.CSV:
        return pl.scan_csv(path, infer_schema_length=10_000)
    if kind is Format.JSON_LINES:
        return pl.scan_ndjson(path, infer_schema_length=10_000)
    return pl.scan_parquet(path)


def _sink(frame: Any, path: Path, kind: Format) -> None:
    if kind is Format.CSV:
        frame.sink_csv(path)
    elif kind is Format.JSON_LINES:
        frame.sink_ndjson(path)
    else:
        frame.sink_parquet(path)


def _limit(order: Order) -> None:
    seconds = max(1, int(order.time_s))
    for what, most in (
        # Not RLIMIT_AS: polars reserves a gigabyte of addresses that it never touches.
        (resource.RLIMIT_DATA, order.memory_bytes),
        (resource.RLIMIT_CPU, seconds * int(THREADS)),
        (resource.RLIMIT_FSIZE, order.memory_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _read_line() -> bytes:
    """The order. Nothing is buffered: the thread that waits for the end must not hold a lock at exit."""
    line = b""
    while not line.endswith(b"\n") and (some := os.read(0, 65_536)):
        line += some
    return line


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
