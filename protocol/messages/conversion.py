"""From a request's decoded data to its declared Struct, with faults in words."""

import re
from functools import cache
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from protocol.errors import INVALID_REQUEST, RequestError
from protocol.messages.declaration import Message

M = TypeVar("M", bound=Message)

_PATH = re.compile(r" - at `\$\.([^`]+)`$")


def convert(data: dict[str, Any], declared: type[M]) -> M:
    """The typed form of `data`. Raises RequestError INVALID_REQUEST that names the field at fault."""
    try:
        return msgspec.convert(data, declared)
    except msgspec.ValidationError as error:
        raise RequestError(INVALID_REQUEST, _in_words(str(error), declared)) from error


def _in_words(fault: str, declared: type[Message]) -> str:
    at = _PATH.search(fault)
    if at is None:
        return fault
    field = at.group(1)
    expected = _descriptions(declared).get(field)
    # The rule in words where it has some: a pattern or a bound says little to a player's programmer.
    if expected is None or "got" in fault:
        return f"`{field}`: {fault[: at.start()]}"
    return f"`{field}`: expected {expected}"


@cache
def _descriptions(declared: type[Message]) -> dict[str, str]:
    """The description of each field that has one, by its name on the wire."""
    hints = get_type_hints(declared, include_extras=True)
    described = {}
    for name, wire_name in zip(declared.__struct_fields__, declared.__struct_encode_fields__, strict=True):
        for meta in _metas(hints[name]):
            if meta.description is not None:
                described[wire_name] = meta.description
    return described


def _metas(hint: Any) -> list[Meta]:
    """The Meta of a type, or of a member of a union."""
    own = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    return own + [meta for member in getattr(hint, "__args__", ()) for meta in _metas(member)]
