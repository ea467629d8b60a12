"""What data processing can be asked to do: where the rows come from, and the operations, all declared.

There is no code and no SQL here: what is not in these Structs cannot be asked for.
"""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from protocol.messages.declaration import Message

Scalar = str | int | float | bool | None
ColumnName = Annotated[str, Meta(min_length=1, max_length=128)]
Columns = Annotated[tuple[ColumnName, ...], Meta(max_length=32)]
TaskId = Annotated[str, Meta(pattern=r"^task_[0-9]{1,16}_[A-Za-z0-9_.-]{1,64}\Z", description="a task's id")]


class Format(Enum):
    """How a file holds rows."""

    CSV = "csv"
    JSON_LINES = "jsonl"
    PARQUET = "parquet"


class Source(Message, frozen=True):
    """Rows: those of an uploaded file of the user's, or `rows` themselves.

    A file's `format` is told by its name where it is left out: `.csv`, `.jsonl`, `.parquet`.
    """

    file_id: TaskId | None = None
    format: Format | None = None
    rows: Annotated[list[dict[str, Scalar]], Meta(min_length=1, max_length=1024)] | None = None

    def __post_init__(self) -> None:
        if (self.file_id is None) == (self.rows is None):
            raise ValueError("`source` needs either `fileId` or `rows`")


class Comparison(Enum):
    """How a column's value is compared with a given one; `in` takes a list, `null` and `not_null` nothing."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    IN = "in"
    CONTAINS = "contains"
    NULL = "null"
    NOT_NULL = "not_null"


class Filter(Message, frozen=True):
    """Keeps the rows whose column compares so."""

    column: ColumnName
    op: Comparison
    value: Scalar | Annotated[list[Scalar], Meta(max_length=256)] = None

    def __post_init__(self) -> None:
        if isinstance(self.value, list) is not (self.op is Comparison.IN):
            raise ValueError("`value` is a list for `in`, and only for it")


class Aggregation(Enum):
    """What becomes of a group's values of a column."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    MEDIAN = "median"
    STD = "std"
    DISTINCT = "distinct"
    PERCENTILE = "percentile"


class Aggregate(Message, frozen=True):
    """One figure of each group, in a column named `name`; `percentile` (0 to 100) goes with that function."""

    function: Aggregation
    column: ColumnName | None = None
    percentile: Annotated[float, Meta(ge=0, le=100)] | None = None
    name: ColumnName | None = None

    def __post_init__(self) -> None:
        if self.column is None and self.function is not Aggregation.COUNT:
            raise ValueError(f"`{self.function.value}` needs a `column`")
        if (self.percentile is None) == (self.function is Aggregation.PERCENTILE):
            raise ValueError("`percentile` goes with the function `percentile`, and only with it")


class Sort(Message, frozen=True):
    """Orders by a column; of several, the first counts most."""

    column: ColumnName
    descending: bool = False


class Operation(Message, frozen=True):
    """What is done, in this order, each part left out where it is not wanted.

    `filter` (all must hold), `groupBy` and `aggregate` (without groups: one row for all), `sort`, `limit`.
    """

    filter: Annotated[tuple[Filter, ...], Meta(max_length=32)] = ()
    group_by: Columns = ()
    aggregate: Annotated[tuple[Aggregate, ...], Meta(max_length=64)] = ()
    sort: Annotated[tuple[Sort, ...], Meta(max_length=8)] = ()
    limit: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None

    def __post_init__(self) -> None:
        if self.group_by and not self.aggregate:
            raise ValueError("`groupBy` needs `aggregate`")
