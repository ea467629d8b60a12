"""Writes docs/protocol.md: its words from docs/protocol.template.md, all that can be derived from protocol/.

python -m scripts.reference            write the page
python -m scripts.reference --check    exit 1 when the page is not what would be written
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import inspect

from protocol.connection import MAX_ID, MAX_KEY_LENGTH, MAX_TYPE_LENGTH
from protocol.errors import ERROR_KINDS, ErrorKind, GoodbyeCode
from protocol.messages import EVENTS, REQUESTS, Access, EventType, Message, Nothing, RequestType
from protocol.messages.connection import PROTOCOL_VERSION
from protocol.shape import MAX_DEPTH, MAX_ENTRIES, MAX_LENGTH
from scripts.example import hello_bytes, session

DOCS = Path(__file__).parent.parent / "docs"
TEMPLATE = DOCS / "protocol.template.md"
PAGE = DOCS / "protocol.md"

NOTICE = (
    "<!-- Written by `python -m scripts.reference`; change protocol/ or protocol.template.md instead. -->\n\n"
)


# Markdown.


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, without its last column where that is empty in every row."""
    lines = [list(head), *(list(row) for row in rows)]
    if not any(line[-1] for line in lines[1:]):
        lines = [line[:-1] for line in lines]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def link(name: str) -> str:
    """A link to the heading `name`, whose anchor is made as GitHub makes it."""
    return f"[`{name}`](#{re.sub(r'[^a-z0-9_-]', '', name.lower())})"


def doc(declared: type[Message]) -> str:
    """A Struct's docstring. Nothing's says nothing of a message without fields."""
    return "" if declared is Nothing else cleandoc(declared.__doc__ or "")


def first_sentence(text: str) -> str:
    """What an index says of a message."""
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]


# Fields.


def _text(kind: inspect.StrType) -> str:
    low, high = kind.min_length, kind.max_length
    if low is None and high is None:
        return ""
    return f"at most {high} characters" if low is None else f"{low} to {high} characters"


def _choices(kind: inspect.EnumType) -> str:
    return ", ".join(f"`{member.value}`" for member in kind.cls)


def _items(kind: Any) -> str:
    return f"each: {' of '.join(filter(None, described(kind.item_type)))}"


def _inner(kind: inspect.StructType) -> str:
    return ", ".join(f"`{field.encode_name}`" for field in kind.fields)


WORDS: dict[type[inspect.Type], tuple[str, Callable[[Any], str]]] = {
    inspect.AnyType: ("anything", lambda kind: ""),
    inspect.NoneType: ("`null`", lambda kind: ""),
    inspect.BoolType: ("boolean", lambda kind: ""),
    inspect.IntType: ("integer", lambda kind: ""),
    inspect.FloatType: ("number", lambda kind: ""),
    inspect.StrType: ("text", _text),
    inspect.EnumType: ("text", _choices),
    inspect.BytesType: ("bytes", lambda kind: ""),
    inspect.ListType: ("array", _items),
    inspect.VarTupleType: ("array", _items),
    inspect.StructType: ("map", _inner),
    inspect.DictType: ("map", lambda kind: f"each value: {described(kind.value_type)[0]}"),
}
"""By the type that msgspec sees: its name for clients, and what its constraints say."""


def described(kind: inspect.Type) -> tuple[str, str]:
    """A type's name and what its values must be. Raises KeyError for a type that has no words yet."""
    if isinstance(kind, inspect.Metadata):
        return described(kind.type)[0], str((kind.extra_json_schema or {})["description"])
    if isinstance(kind, inspect.UnionType):
        parts = [described(one) for one in kind.types]
        return " or ".join(name for name, _ in parts), "; ".join(must for _, must in parts if must)
    name, constraints = WORDS[type(kind)]
    return name, constraints(kind)


def fields(declared: type[Message]) -> str:
    """A Struct's fields as a table, or nothing where it has none."""
    found = cast(inspect.StructType, inspect.type_info(declared)).fields
    return table(("field", "type", "what it is"), map(_row, found)) if found else ""


def _row(field: inspect.Field) -> tuple[str, str, str]:
    name, must = described(field.type)
    if field.required:
        return f"`{field.encode_name}`", name, must
    if field.default in (None, msgspec.NODEFAULT):  # msgspec hides a default of UNSET.
        return f"`{field.encode_name}?`", name.removesuffix(" or `null`"), must
    value = msgspec.json.encode(field.default).decode()
    return f"`{field.encode_name}`", name, f"`{value}`"


# Messages.


def in_order() -> list[RequestType]:
    """The requests by domain, those about the connection itself first; else as they are declared."""
    return sorted(REQUESTS.values(), key=lambda declared: declared.name.rpartition(".")[0])


def who(declared: RequestType) -> str:
    """Whether a connection must be signed in for this request, and as whom."""
    if declared.access is not Access.SIGNED_IN:
        return "not needed"
    if not declared.gated:
        return "needed"
    resource = f"request:{declared.name.replace('.', ':')}"
    return f"needed, and a policy that allows `request:send` on `{resource}`"


def key(declared: RequestType) -> str:
    """Whose an idempotency key is before sign-in."""
    if declared.scope is None:
        return ""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(declared.data)}
    return f" A `key` belongs to the `{names[declared.scope]}`."


def errors(kinds: Iterable[ErrorKind]) -> str:
    """Error kinds as a table, by status."""
    rows = [
        (str(kind.status), f"`{kind.code}`", kind.message)
        for kind in sorted(kinds, key=lambda kind: kind.status)
    ]
    return table(("status", "code", "meaning"), rows)


def request_section(declared: RequestType) -> str:
    """All about one request."""
    reply = fields(declared.reply)
    has = "" if reply else ", without fields"
    parts = [
        f"### `{declared.name}`",
        doc(declared.data),
        f"Sign-in: {who(declared)}.{key(declared)}",
        fields(declared.data) or "No fields.",
        f"**Answer: {declared.status}**{has}. {doc(declared.reply)}".strip(),
        reply,
    ]
    if declared.errors:
        parts += ["Errors, besides those [that any request may meet](#errors):", errors(declared.errors)]
    return "\n\n".join(part for part in parts if part)


def event_section(declared: EventType) -> str:
    """All about one event."""
    return "\n\n".join([f"### `{declared.name}`", doc(declared.data), fields(declared.data)])


def special_errors() -> list[ErrorKind]:
    """The errors that single requests name."""
    named = {kind.code for declared in REQUESTS.values() for kind in declared.errors}
    return [kind for kind in ERROR_KINDS.values() if kind.code in named]


def errors_by_request() -> str:
    """The errors that single requests name, with those requests."""
    rows = []
    for kind in special_errors():
        met_by = [link(declared.name) for declared in in_order() if kind in declared.errors]
        rows.append((str(kind.status), f"`{kind.code}`", kind.message, ", ".join(met_by)))
    return table(("status", "code", "meaning", "met by"), rows)


# The page.


def derived() -> dict[str, str]:
    """What the template's marks stand for."""
    special = special_errors()
    requests = in_order()
    return {
        "version": str(PROTOCOL_VERSION),
        "hello_bytes": hello_bytes(),
        "max_depth": str(MAX_DEPTH),
        "max_length": f"{MAX_LENGTH:,}",
        "max_entries": f"{MAX_ENTRIES:,}",
        "max_type_length": str(MAX_TYPE_LENGTH),
        "max_id": str(MAX_ID),
        "max_key_length": str(MAX_KEY_LENGTH),
        "request_index": table(
            ("type", "what it does", "sign-in"),
            [(link(one.name), first_sentence(doc(one.data)), who(one)) for one in requests],
        ),
        "requests": "\n\n".join(map(request_section, requests)),
        "event_index": table(
            ("type", "what it says"),
            [(link(one.name), first_sentence(doc(one.data))) for one in EVENTS.values()],
        ),
        "events": "\n\n".join(map(event_section, EVENTS.values())),
        "general_errors": errors(kind for kind in ERROR_KINDS.values() if kind not in special),
        "special_errors": errors_by_request(),
        "goodbyes": table(
            ("code", "come back?", "meaning"),
            [(f"`{code.code}`", "yes" if code.reconnect else "no", code.message) for code in GoodbyeCode],
        ),
        "session": session(),
    }


def page() -> str:
    """The whole page. Raises KeyError for a mark in the template that nothing stands for."""
    values = derived()
    return NOTICE + re.sub(r"\{\{(\w+)\}\}", lambda mark: values[mark[1]], TEMPLATE.read_text("utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or judge it with --check. Answers the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.reference", description="Write docs/protocol.md."
    )
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    wanted = page()
    if not parser.parse_args(arguments).check:
        PAGE.write_text(wanted, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != wanted:
        print(f"{PAGE.name} is not current: run `python -m scripts.reference`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
