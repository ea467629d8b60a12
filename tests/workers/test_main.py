"""A worker's command line."""

import argparse

import pytest

from workers.__main__ import KINDS, named


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_or_with_a_number(kind: str) -> None:
    assert named(kind) == (kind, "")
    assert named(f"{kind}-12") == (kind, "12")


@pytest.mark.parametrize("text", ["", "cook", "login-", "login-x", "login--1", "-1", "login-1-2", "LOGIN"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected KIND or KIND-N"):
        named(text)
