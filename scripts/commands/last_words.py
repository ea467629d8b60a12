"""What a process wrote before it died, for people."""

import json
from pathlib import Path
from typing import Any

END_BYTES = 16 * 1024
MOST_LINES = 6
MOST_CHARACTERS = 300
TELLING_LEVELS = frozenset({"warning", "error", "critical"})


def last_words(log: Path, start: int) -> list[str]:
    """The last telling lines that were appended to the log since it had `start` bytes.

    Of log lines those of level warning or worse, shortened; of anything else every line. Each but once, and
    no more of one than people read.
    """
    try:
        with log.open("rb") as file:
            begin = max(start, log.stat().st_size - END_BYTES)
            file.seek(begin)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    if begin > start:
        del lines[:1]  # it is the end of a line
    told = dict.fromkeys(_short(words) for line in lines if (words := _readable(line)))
    return list(told)[-MOST_LINES:]


def _short(words: str) -> str:
    return words if len(words) <= MOST_CHARACTERS else words[:MOST_CHARACTERS] + "…"


def _readable(line: str) -> str:
    record = _record(line)
    if record is None:
        return line.rstrip()
    if record.get("level") not in TELLING_LEVELS:
        return ""
    said = f"{record['level']}: {record.get('event', '')}"
    if record.get("cause"):
        return f"{said}: {record['cause']}"
    error = str(record.get("exception", "")).strip().rpartition("\n")[2]
    return f"{said}: {error}" if error else said


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
