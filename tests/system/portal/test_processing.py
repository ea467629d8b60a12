"""Data processing: declared operations on rows and files, and what cannot be done said in words."""

from pathlib import Path

import pytest

from protocol.messages.portal import TaskType, TaskUpdate
from protocol.messages.processing import Aggregate, Aggregation, Comparison, Filter, Operation, Sort, Source
from tests.system.cluster import Cluster
from tests.system.portal.asking import SUBMIT_FILE, Player, ended, signed_in, submit

pytestmark = pytest.mark.servers

SCORES: list[dict[str, str | int | float | bool | None]] = [
    {"user": f"u{number}", "score": number, "region": "ab"[number % 2]} for number in range(100)
]


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
    accepted = await submit(player, **SUBMIT_FILE, file_name="rows.csv", size=len(content), file_data=content)
    file_id = (await ended(player, accepted.task_id)).result["fileId"]

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


async def test_of_a_bomb_ends_in_words(portal: Cluster, player: Player) -> None:
    bomb = b"\x1f\x8b" + bytes(100)
    accepted = await submit(player, **SUBMIT_FILE, file_name="rows.csv", size=len(bomb), file_data=bomb)
    file_id = (await ended(player, accepted.task_id)).result["fileId"]

    update = await process(player, Source(file_id=file_id), Operation(limit=1))

    assert update.error == "Compressed files are not taken: unpack it first."


async def test_of_another_users_file_is_refused(portal: Cluster, player: Player) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a.csv", size=1, file_data=b"a")
    await ended(player, accepted.task_id)
    stranger = await signed_in(portal)

    update = await process(stranger, Source(file_id=accepted.task_id), Operation(limit=1))

    assert update.error == f"You have no file {accepted.task_id}."
    stranger.leave()
