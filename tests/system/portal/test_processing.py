"""Data processing: declared operations on rows and files, and what cannot be done said in words."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path

import polars as pl
import pytest

from protocol.messages.portal import TaskType, TaskUpdate
from protocol.messages.processing import Aggregate, Aggregation, Comparison, Filter, Operation, Sort, Source
from storage import keys
from tests.system.cluster import Cluster
from tests.system.portal.asking import SUBMIT_FILE, Player, ended, files_of, signed_in, submit

pytestmark = pytest.mark.servers

SCORES: list[dict[str, str | int | float | bool | None]] = [
    {"user": f"u{number}", "score": number, "region": "ab"[number % 2]} for number in range(100)
]


def zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("rows.csv", content)
    return archive.getvalue()


async def upload(player: Player, name: str, content: bytes) -> str:
    """Store a file. Answers its id."""
    accepted = await submit(player, **SUBMIT_FILE, file_name=name, size=len(content), file_data=content)
    file_id: str = (await ended(player, accepted.task_id)).result["fileId"]
    return file_id


async def process(player: Player, source: Source, operation: Operation) -> TaskUpdate:
    accepted = await submit(player, task_type=TaskType.DATA_PROCESSING, source=source, operation=operation)
    return await ended(player, accepted.task_id)


async def test_of_rows_that_come_along(player: Player) -> None:
    operation = Operation(
        filter=(Filter(column="score", op=Comparison.GE, value=50),),
        group_by=("region",),
        aggregate=(
            Aggregate(function=Aggregation.COUNT),
            Aggregate(function=Aggregation.PERCENTILE, column="score", percentile=50),
        ),
        sort=(Sort(column="region", descending=True),),
    )

    update = await process(player, Source(rows=SCORES), operation)

    assert update.result == {
        "rowCount": 2,
        "columns": ["region", "count", "score_p50"],
        "rows": [
            {"region": "b", "count": 25, "score_p50": 75.0},
            {"region": "a", "count": 25, "score_p50": 74.0},
        ],
    }


async def test_a_large_result_is_a_file(portal: Cluster, player: Player) -> None:
    content = b"number,text\n" + b"".join(b"%d,row\n" % number for number in range(5000))
    file_id = await upload(player, "rows.csv", content)

    operation = Operation(sort=(Sort(column="number", descending=True),))
    update = await process(player, Source(file_id=file_id), operation)

    assert update.result["rowCount"] == 5000
    path = Path(str(portal.settings["portal.storage_url"]), update.result["resultFile"]["path"])
    assert path.read_text().splitlines()[1] == "4999,row"


async def test_that_cannot_be_done_says_why(player: Player) -> None:
    operation = Operation(sort=(Sort(column="^.*$"),))

    update = await process(player, Source(rows=SCORES), operation)

    assert update.status == "failed"
    assert "ColumnNotFound" in str(update.error)


@pytest.mark.parametrize(
    "bomb",
    [
        gzip.compress(bytes(10_000_000)),
        zipped(bytes(10_000_000)),
        bz2.compress(bytes(10_000_000)),
        lzma.compress(bytes(10_000_000)),
        *(zlib.compress(bytes(10_000_000), level) for level in (1, 6, 9)),
        b"\x28\xb5\x2f\xfd" + bytes(100),
    ],
    ids=["gzip", "zip", "bzip2", "xz", "zlib 1", "zlib 6", "zlib 9", "zstd"],
)
async def test_of_what_is_compressed_is_refused(portal: Cluster, player: Player, bomb: bytes) -> None:
    file_id = await upload(player, "rows.csv", bomb)
    files = files_of(portal)

    update = await process(player, Source(file_id=file_id), Operation(limit=1))

    assert update.error == "Compressed files are not taken: unpack it first."
    assert files_of(portal) == files


async def test_of_a_bomb_ends_its_task_alone(portal: Cluster, player: Player, tmp_path: Path) -> None:
    numbers = pl.LazyFrame({"a": [7] * 1_000_000})
    pl.concat([numbers] * 60).sink_parquet(tmp_path / "bomb.parquet")
    file_id = await upload(player, "bomb.parquet", (tmp_path / "bomb.parquet").read_bytes())
    files, pids = files_of(portal), [portal[f"portal-{number}"].pid for number in (1, 2)]
    exploding = [
        await submit(
            player,
            task_type=TaskType.DATA_PROCESSING,
            source=Source(file_id=file_id),
            operation=Operation(sort=(Sort(column="a"),)),
        )
        for _ in range(2)
    ]

    harmless = await process(player, Source(rows=SCORES), Operation(limit=1))

    assert harmless.result["rows"] == SCORES[:1]
    for accepted in exploding:
        update = await ended(player, accepted.task_id)
        assert (update.status, "bytes of memory" in str(update.error)) == ("failed", True)
    assert [portal[f"portal-{number}"].exit_code for number in (1, 2)] == [None, None]
    assert [portal[f"portal-{number}"].pid for number in (1, 2)] == pids
    assert files_of(portal) == files
    assert portal.redis.xlen(keys.dead_letters(keys.task_queue("data_processing"))) == 0


async def test_of_another_users_file_is_refused(portal: Cluster, player: Player) -> None:
    file_id = await upload(player, "a.csv", b"a")
    stranger = await signed_in(portal)

    update = await process(stranger, Source(file_id=file_id), Operation(limit=1))

    assert update.error == f"You have no file {file_id}."
    stranger.leave()
