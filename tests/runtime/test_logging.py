"""The log: one line an event, with its context, and without a secret."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from runtime.logging import redact, redact_text

PROGRAM = """
import logging as standard, sys, structlog, warnings
from runtime import logging
logging.configure(sys.argv[1], sys.argv[2], "SOCK001")
log = structlog.get_logger("door")
def fail(password):
    raise ValueError("redis://:hunter2@host is away")
"""


def run(body: str, level: str = "info", format: str = "json") -> str:
    command = [sys.executable, "-c", PROGRAM + body, level, format]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def lines(body: str, level: str = "info") -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(body, level).splitlines()]


@pytest.mark.servers
def test_a_line_has_its_context() -> None:
    (line,) = lines(
        "with structlog.contextvars.bound_contextvars(trace_id='t1'):\n  log.info('열림', port=7400)"
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "process": "SOCK001",
        "event": "열림",
        "logger": "door",
        "trace_id": "t1",
        "port": 7400,
    }


@pytest.mark.servers
def test_other_libraries_log_the_same_way() -> None:
    body = "standard.getLogger('redis').warning('lost %s', 'it', extra={})\nwarnings.warn('old')"
    lost, old = lines(body)
    assert tuple(lost[key] for key in ("event", "logger", "level", "process")) == (
        "lost it",
        "redis",
        "warning",
        "SOCK001",
    )
    assert "old" in old["event"]


@pytest.mark.servers
def test_the_level_is_the_least_that_is_written() -> None:
    body = (
        "other = standard.getLogger('x')\nlog.info('a'); log.warning('b'); other.info('c'); other.error('d')"
    )
    assert [line["event"] for line in lines(body, "warning")] == ["b", "d"]


@pytest.mark.servers
def test_an_exception_is_part_of_its_line_and_shows_no_secret() -> None:
    (line,) = lines("try: fail('hunter2')\nexcept ValueError: log.exception('failed')")
    assert "ValueError: redis://***@host is away" in line["exception"]
    (line,) = lines("try: fail('hunter2')\nexcept ValueError: standard.getLogger('x').exception('failed')")
    assert "ValueError: redis://***@host is away" in line["exception"]


@pytest.mark.servers
@pytest.mark.parametrize(("no_color", "has_colours"), [("", True), ("1", False)])
def test_the_console_has_colours_for_who_wants_them(
    monkeypatch: pytest.MonkeyPatch, no_color: str, has_colours: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    assert ("\x1b[" in run("log.info('열림')", format="console")) == has_colours


@pytest.mark.servers
def test_the_console_shows_no_secret_either() -> None:
    # Python 3.13 shows the program's own lines.
    secret = "'hunter' + '2'"
    body = f"try: fail({secret})\nexcept ValueError: log.exception('failed', token={secret})"
    text = run(body, format="console")
    assert "failed" in text
    assert "hunter2" not in text


@pytest.mark.servers
def test_auto_is_json_where_there_is_no_terminal() -> None:
    assert json.loads(run("log.info('a')", format="auto"))["event"] == "a"


@pytest.mark.servers
def test_nothing_that_is_logged_can_make_logging_fail() -> None:
    body = """
class Odd:
    def __repr__(self): return "odd"
circle = []; circle.append(circle)
log.info("a", odd=Odd(), circle=circle, keys={1: 2, (1, 2): 3}, lone="\\udc80", raw=b"\\xff",
    huge=2**70, day=float("nan"))
"""
    (line,) = lines(body)
    assert (line["odd"], line["keys"], line["huge"]) == ("odd", {"1": 2, "(1, 2)": 3}, 2**70)


class Login(msgspec.Struct):
    username: str
    password: str


@dataclasses.dataclass
class Account:
    name: str
    email: str


TELLING_KEYS = (
    "password newPassword PASSWORD token access_token refreshToken secret client-secret Authorization email "
    "e_mail peer client_fingerprint cookie api_key"
)


@pytest.mark.parametrize("key", TELLING_KEYS.split())
def test_values_of_telling_keys_are_hidden_at_any_depth(key: str) -> None:
    event = redact(None, "info", {"event": "a", key: "hunter2", "deep": [{"er": ({key: ["hunter2"]},)}]})
    assert event == {"event": "a", key: "***", "deep": [{"er": [{key: "***"}]}]}


def test_structs_and_dataclasses_are_looked_into() -> None:
    event = redact(
        None, "info", {"login": Login("kim", "hunter2"), "account": Account("kim", "kim@example.com")}
    )
    assert event == {
        "login": {"username": "kim", "password": "***"},
        "account": {"name": "kim", "email": "***"},
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:hunter2@host:1/0", "redis://***@host:1/0"),
        (
            "cannot reach mysql+aiomysql://u:p@ss@h/db?x=1 now",
            "cannot reach mysql+aiomysql://***@h/db?x=1 now",
        ),
        ("redis://:pa/ss@host:1/0", "redis://***@host:1/0"),
        ("mysql+aiomysql://u:/p/@ss@h/db", "mysql+aiomysql://***@h/db"),
        ("redis://host:1/0 by kim@example.com", "redis://host:1/0 by kim@example.com"),
        ("no URL, but a@b", "no URL, but a@b"),
    ],
)
def test_credentials_in_urls_are_hidden(text: str, shown: str) -> None:
    assert redact_text(text) == shown
