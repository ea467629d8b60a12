"""A worker's command line."""

import argparse
import os
import subprocess
import sys

import pytest

from storage.migrations import LOCK_WAIT_S
from workers.__main__ import KINDS, named
from workers.process import database_step


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_or_with_a_number(kind: str) -> None:
    assert named(kind) == (kind, "")
    assert named(f"{kind}-12") == (kind, "12")


@pytest.mark.parametrize("text", ["", "cook", "login-", "login-x", "login--1", "-1", "login-1-2", "LOGIN"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected KIND or KIND-N"):
        named(text)


def test_bounds_of_scaling_that_exclude_each_other_are_refused() -> None:
    given = {
        "redis.url": "redis://127.0.0.1:9",
        "database.url": "sqlite+aiosqlite:///x",
        "scaling.least": "9",
    }
    settings = [word for name, text in given.items() for word in ("--set", f"{name}={text}")]
    done = subprocess.run(
        [sys.executable, "-m", "workers", "operations-1", *settings],
        env={**os.environ, "LOBBYD_AUTH__SECRET": "a master secret that only the tests know"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    said = "scaling.least: 9 workers at least are more than the 8 at most\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_start_outlasts_the_wait_for_another_process_that_migrates() -> None:
    assert database_step("sqlite+aiosqlite:///x").timeout_s > LOCK_WAIT_S
