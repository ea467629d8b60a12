"""Examples of every declared message, made from its declaration: a new message is tested from its first day.

They have the form of the wire: maps with camelCase names, as another library would send them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from hypothesis import strategies as st
from msgspec import inspect

from protocol.messages import EVENTS, REQUESTS, Message
from protocol.messages.auth import Login
from protocol.messages.portal import Submit
from protocol.messages.processing import Aggregate, Filter, Operation, Source

DATA_TYPES = sorted(
    {declared.data for declared in REQUESTS.values()}
    | {declared.reply for declared in REQUESTS.values()}
    | {declared.data for declared in EVENTS.values()},
    key=lambda data_type: data_type.__name__,
)
"""Every Struct that a client may meet."""

characters = st.characters(codec="utf-8")
passwords = st.text(characters, min_size=8, max_size=18)
"""Of 8 to 72 bytes, whatever the characters."""


def fields_of(data_type: type[Message]) -> tuple[inspect.Field, ...]:
    """The fields of a Struct, with their types and constraints."""
    return cast(inspect.StructType, inspect.type_info(data_type)).fields


def wire_maps(data_type: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
    """Maps that are this message on the wire."""
    if data_type is Login:
        return _maps(Login, {"username", "password"}, without={"refreshToken"}) | _maps(
            Login, {"refreshToken"}, without={"username", "password"}
        )
    if data_type in WHOLE:
        return WHOLE[data_type]()
    return _maps(data_type, set(), set())


def _submits() -> st.SearchStrategy[dict[str, Any]]:
    """What `portal.submit` takes: each kind of task has fields of its own."""
    file = {"fileName", "size", "sha256", "fileData"}
    data, notice = {"source", "operation"}, {"message", "recipients", "groups", "channel"}
    kinds = (
        ("file_upload", {"fileName", "size"}, data | notice | {"fileData"}),
        ("data_processing", data, file | notice),
        ("notification", {"message", "recipients"}, file | data | {"groups"}),
    )
    return st.one_of(
        [_maps(Submit, needed, without).map(partial(_of_kind, kind)) for kind, needed, without in kinds]
    )


def _of_kind(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "taskType": kind, "recipients": data.get("recipients") or ["somebody"]}


def _filters() -> st.SearchStrategy[dict[str, Any]]:
    """A comparison takes a list where it is `in`, and only there."""

    def agree(data: dict[str, Any]) -> dict[str, Any]:
        value = data.get("value")
        if data["op"] == "in":
            return {**data, "value": value if isinstance(value, list) else [value]}
        return {**data, "value": None if isinstance(value, list) else value}

    return _maps(Filter, set(), set()).map(agree)


def _aggregates() -> st.SearchStrategy[dict[str, Any]]:
    """A figure has a percentile where it is one, and only there."""

    def agree(data: dict[str, Any]) -> dict[str, Any]:
        percentile = data.pop("percentile")
        return {**data, "percentile": percentile} if data["function"] == "percentile" else data

    return _maps(Aggregate, {"column", "percentile"}, set()).map(agree)


def _operations() -> st.SearchStrategy[dict[str, Any]]:
    """Groups have figures."""
    return _maps(Operation, set(), {"groupBy"})


def _sources() -> st.SearchStrategy[dict[str, Any]]:
    """Rows come from a file or along with the request."""
    return _maps(Source, {"rows"}, {"fileId"}) | _maps(Source, {"fileId"}, {"rows"})


WHOLE: dict[type[Message], Callable[[], st.SearchStrategy[dict[str, Any]]]] = {
    Submit: _submits,
    Filter: _filters,
    Aggregate: _aggregates,
    Operation: _operations,
    Source: _sources,
}
"""Strategies of Structs whose fields must agree with each other."""


def _maps(data_type: type[Message], needed: set[str], without: set[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Maps with the required fields, with those that are `needed` and not null, and with some others."""
    required, optional = {}, {}
    for field in fields_of(data_type):
        name = field.encode_name
        values = passwords if name == "password" else wire_values(field.type, nullable=name not in needed)
        if field.required or name in needed:
            required[name] = values
        elif name not in without:
            optional[name] = values
    return st.fixed_dictionaries(required, optional=optional)


def wire_values(kind: inspect.Type, nullable: bool = True) -> st.SearchStrategy[Any]:
    """Values of a field's type, as they are on the wire. Raises KeyError for a type that has no maker yet."""
    if isinstance(kind, inspect.Metadata):
        return wire_values(kind.type, nullable)
    if isinstance(kind, inspect.UnionType):
        kept = [one for one in kind.types if nullable or not isinstance(one, inspect.NoneType)]
        return st.one_of([wire_values(one) for one in kept])
    return MAKERS[type(kind)](kind)


def _integers(kind: inspect.IntType) -> st.SearchStrategy[int]:
    low = kind.ge if kind.ge is not None else -(2**63) if kind.gt is None else kind.gt + 1
    high = kind.le if kind.le is not None else 2**63 - 1 if kind.lt is None else kind.lt - 1
    return st.integers(int(low), int(high))


def _texts(kind: inspect.StrType) -> st.SearchStrategy[str]:
    low, high = kind.min_length or 0, kind.max_length or 100
    if kind.pattern is None:
        return st.text(characters, min_size=low, max_size=high)
    matching = st.from_regex(kind.pattern, alphabet=characters)
    return matching.filter(lambda text: low <= len(text) <= high)


MAKERS: dict[type[inspect.Type], Callable[[Any], st.SearchStrategy[Any]]] = {
    inspect.AnyType: lambda kind: (
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9)
    ),
    inspect.NoneType: lambda kind: st.none(),
    inspect.BoolType: lambda kind: st.booleans(),
    inspect.IntType: _integers,
    inspect.FloatType: lambda kind: st.floats(kind.ge, kind.le, allow_nan=False),
    inspect.StrType: _texts,
    inspect.BytesType: lambda kind: st.binary(
        min_size=kind.min_length or 0, max_size=min(kind.max_length or 100, 1000)
    ),
    inspect.EnumType: lambda kind: st.sampled_from([member.value for member in kind.cls]),
    inspect.LiteralType: lambda kind: st.sampled_from(kind.values),
    inspect.ListType: lambda kind: st.lists(
        wire_values(kind.item_type), min_size=kind.min_length or 0, max_size=min(kind.max_length or 5, 5)
    ),
    inspect.VarTupleType: lambda kind: st.lists(
        wire_values(kind.item_type), min_size=kind.min_length or 0, max_size=min(kind.max_length or 5, 5)
    ),
    inspect.AnyType: lambda kind: st.none() | st.booleans() | st.text(characters, max_size=10),
    inspect.DictType: lambda kind: st.dictionaries(
        st.text(characters, max_size=10), wire_values(kind.value_type), max_size=5
    ),
    inspect.StructType: lambda kind: wire_maps(kind.cls),
}
"""Strategies by the type that msgspec sees."""
