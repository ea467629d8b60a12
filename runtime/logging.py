"""The log: one line an event to stderr, JSON for machines, coloured text for a terminal, never a secret.

Everything goes the same way, also what other libraries log through the standard library. Lines carry `time`
(ISO 8601, UTC), `level`, `event`, `process`, `logger` and what contextvars hold: bind a trace with
`structlog.contextvars.bound_contextvars(trace_id=…)`.
"""

import dataclasses
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "***"
_SECRET_KEY = re.compile(
    r"passw|token|secret|authorization|email|peer|fingerprint|cookie|credential|apikey|privatekey"
)
# As far as the last "@", since people write "/" and "@" in passwords: rather too much than too little.
_URL_CREDENTIALS = re.compile(r"://\S+@")
_MAXIMUM_DEPTH = 8  # deeper, or in a circle, a value is shown as "…"


def configure(level: str, format: Literal["auto", "json", "console"], process_id: str) -> None:
    """Send every log of this process to stderr, from `level` (debug, info, warning, error) on.

    `process_id` names the process in every line, e.g. SOCK001. `auto` is console on a terminal, else json.
    """
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[*_context(process_id), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_context(process_id),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(console)],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    # At debug it tells every statement with its values: password hashes, among others.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    logging.captureWarnings(True)


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Hide values whose key speaks of a secret, at any depth, and credentials in URLs."""
    return {key: _redacted(key, value, 0) for key, value in event.items()}


def redact_text(text: str) -> str:
    """The text without the credentials that URLs in it may carry (`redis://:pass@host` → `redis://***@host`)."""
    return _URL_CREDENTIALS.sub(f"://{REDACTED}@", text) if "://" in text else text


def _context(process_id: str) -> list[Processor]:
    def name_process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["process"] = process_id
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_process,
    ]


def _rendering(console: bool) -> list[Processor]:
    """Exceptions become text before anything is redacted; none shows the local variables of its frames."""
    renderer: Processor = structlog.processors.JSONRenderer(serializer=_json)
    if console:
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(
            # As https://no-color.org has it, and as the command line does.
            colors=not os.environ.get("NO_COLOR"),
            timestamp_key="time",
            exception_formatter=plain,
        )
    return [structlog.processors.format_exc_info, redact, renderer]


def _json(event: Mapping[str, Any], **_: object) -> str:
    leading = {key: event[key] for key in ("time", "level", "process", "event") if key in event}
    return json.dumps({**leading, **event}, ensure_ascii=False, default=str)


def _redacted(key: object, value: Any, depth: int) -> Any:
    if isinstance(key, str) and _SECRET_KEY.search(key.lower().replace("_", "").replace("-", "")):
        return REDACTED
    return _scrubbed(value, depth)


def _scrubbed(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth == _MAXIMUM_DEPTH:
        return "…"
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _redacted(key, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_scrubbed(inner, depth + 1) for inner in value]
    return redact_text(repr(value))
