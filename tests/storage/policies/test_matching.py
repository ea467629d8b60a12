"""Patterns match by segments, and by nothing else."""

import re

import pytest
from hypothesis import given, strategies as st

from storage.policies.matching import Pattern

segments = st.text(
    st.characters(codec="utf-8", exclude_characters=":*", categories=("L", "N", "P", "S")), min_size=1
)
few = st.sampled_from(["a", "b", "ab", "queue", "{", "\\d", ".", "a b"])
names = st.lists(few | segments, min_size=1, max_size=4)
patterns = st.lists(few | segments | st.just("*"), min_size=1, max_size=4)


def as_expression(pattern: list[str]) -> str:
    """The same by regular expression: every `*` is one segment, a last one is all the rest."""
    *head, last = [re.escape(segment) if segment != "*" else "[^:]+" for segment in pattern]
    return ":".join([*head, ".+" if pattern[-1] == "*" else last])


@given(patterns, names)
def test_a_pattern_matches_what_its_expression_does(pattern: list[str], name: list[str]) -> None:
    expected = re.fullmatch(as_expression(pattern), ":".join(name), re.DOTALL) is not None
    assert Pattern(":".join(pattern)).matches(name) is expected


@given(names)
def test_a_name_matches_itself_and_all(name: list[str]) -> None:
    text = ":".join(name)
    assert Pattern(text).matches(name)
    assert Pattern("*").matches(name)
    assert Pattern(f"{text}:*").matches([*name, "more", "still"])
    assert not Pattern(f"{text}:*").matches(name)


@given(names, names)
def test_without_a_star_only_the_same_name_matches(one: list[str], other: list[str]) -> None:
    assert Pattern(":".join(one)).matches(other) is (one == other)


@given(names, names, st.data())
def test_a_star_for_a_segment_matches_no_less(
    pattern: list[str], name: list[str], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(pattern) - 1))
    wider = [*pattern[:index], "*", *pattern[index + 1 :]]
    if Pattern(":".join(pattern)).matches(name):
        assert Pattern(":".join(wider)).matches(name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty segment"),
        ("a:", "empty segment"),
        (":a", "empty segment"),
        ("a::b", "empty segment"),
        ("a*", "whole segment"),
        ("a:**", "whole segment"),
        ("user_*:x", "whole segment"),
        ("a\nb", "does not print"),
        ("a:b\x00", "does not print"),
    ],
)
def test_what_is_no_pattern_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Pattern(text)
