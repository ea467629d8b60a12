"""Data that is made to harm: the process that looks at it ends alone, and says or shows why."""

from pathlib import Path

import polars as pl
import pytest

from protocol.messages.processing import Aggregate, Aggregation, Comparison, Filter, Format, Operation, Sort
from workers.portal import crunching
from workers.portal.crunching import Order
from workers.portal.data_processing import crunch_apart
from workers.portal.kinds import Refused

MEMORY_BYTES = 300_000_000
TIME_S = 30.0
MILLION = 1_000_000

AS_IT_IS = Operation()
SORTED = Operation(sort=(Sort(column="a"),))
TOO_LARGE = r"more than 300,000,000 bytes of memory"


def parquet(path: Path, *frames: pl.LazyFrame) -> bytes:
    """The rows of all frames, one after the other, written without holding them."""
    pl.concat(frames).sink_parquet(path)
    return path.read_bytes()


def small(folder: Path) -> bytes:
    return parquet(folder / "small.parquet", pl.LazyFrame({"a": range(1000)}))


async def process(folder: Path, content: bytes, kind: Format, operation: Operation) -> crunching.Found:
    (folder / crunching.SOURCE).write_bytes(content)
    return await crunch_apart(Order(kind, operation, MEMORY_BYTES, TIME_S), folder)


async def test_so_much_memory_is_enough_for_what_is_small(tmp_path: Path) -> None:
    found = await process(tmp_path, small(tmp_path), Format.PARQUET, SORTED)
    assert found.row_count == 1000


async def test_a_parquet_of_few_bytes_and_many_rows(tmp_path: Path) -> None:
    """60 million numbers, 480 MB, in less than a MB."""
    numbers = pl.LazyFrame({"a": [7] * MILLION})
    bomb = parquet(tmp_path / "bomb.parquet", *[numbers] * 60)
    assert len(bomb) < MILLION

    with pytest.raises(Refused, match=TOO_LARGE):
        await process(tmp_path, bomb, Format.PARQUET, SORTED)

    added = Operation(aggregate=(Aggregate(function=Aggregation.SUM, column="a"),))
    assert (await process(tmp_path, bomb, Format.PARQUET, added)).rows == [{"a_sum": 420 * MILLION}]


async def test_a_parquet_whose_dictionary_makes_texts_of_nothing(tmp_path: Path) -> None:
    """Four million texts of 2,000 characters, 8 GB, in less than a MB."""
    texts = pl.LazyFrame({"a": ["x" * 2000] * 100_000})
    bomb = parquet(tmp_path / "bomb.parquet", *[texts] * 40)
    assert len(bomb) < MILLION

    with pytest.raises(Refused, match=TOO_LARGE):
        await process(tmp_path, bomb, Format.PARQUET, SORTED)

    found = Operation(filter=(Filter(column="a", op=Comparison.CONTAINS, value="y"),))
    assert (await process(tmp_path, bomb, Format.PARQUET, found)).row_count == 0


@pytest.mark.parametrize("footer", [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0"])
async def test_a_parquet_with_a_footer_of_another_size(tmp_path: Path, footer: bytes) -> None:
    content = small(tmp_path)
    with pytest.raises(Refused, match="parquet"):
        await process(tmp_path, content[:-8] + footer + content[-4:], Format.PARQUET, AS_IT_IS)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, Format.CSV),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, Format.PARQUET),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, Format.JSON_LINES),
        (b"", Format.CSV),
        (b"", Format.PARQUET),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", Format.JSON_LINES),
        (b"a\n" + b"x" * 50_000_000 + b"\n", Format.CSV),
    ],
    ids=["png as csv", "png as parquet", "png as jsonl", "empty csv", "empty parquet", "deep", "long line"],
)
async def test_what_is_not_what_it_is_said_to_be(tmp_path: Path, content: bytes, kind: Format) -> None:
    with pytest.raises(Refused):
        await process(tmp_path, content, kind, SORTED)


async def test_what_takes_too_long(tmp_path: Path) -> None:
    (tmp_path / crunching.SOURCE).write_bytes(small(tmp_path))
    with pytest.raises(Refused, match=r"longer than 0\.01 s"):
        await crunch_apart(Order(Format.PARQUET, AS_IT_IS, MEMORY_BYTES, 0.01), tmp_path)


async def test_more_names_of_columns_than_a_message_takes(tmp_path: Path) -> None:
    """A table of one row whose header alone has more than a MB."""
    names = ",".join(f"{'x' * 100}{number}" for number in range(12_000))
    with pytest.raises(Refused, match=r"The names of its 12,000 columns are too long"):
        await process(tmp_path, f"{names}\n{','.join('1' * 12_000)}\n".encode(), Format.CSV, AS_IT_IS)


async def test_what_lies_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "polars.py").write_text("raise SystemExit('run')\n")
    monkeypatch.chdir(here)
    assert (await process(tmp_path, small(tmp_path), Format.PARQUET, AS_IT_IS)).row_count == 1000
