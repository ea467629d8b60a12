"""How the patterns of rules match actions and resources: by segments between colons. Pure.

`*` stands for any one segment, and as the last segment for all that follow, at least one: `queue:*` matches
`queue:join` and `queue:portal:VIP`, but not `queue`. A segment matches whole and letter by letter.
"""

from collections.abc import Sequence

SEPARATOR = ":"
ANY = "*"


class Pattern:
    """The action or resource of a rule."""

    __slots__ = ("_has_rest", "_head")

    def __init__(self, text: str) -> None:
        """Raises ValueError, in words, for what is no pattern."""
        segments = text.split(SEPARATOR)
        for segment in segments:
            _check(text, segment)
        self._has_rest = segments[-1] == ANY
        self._head = segments[:-1] if self._has_rest else segments

    def matches(self, name: Sequence[str]) -> bool:
        """Whether the pattern matches a name that is split into its segments."""
        head = self._head
        if len(name) <= len(head) if self._has_rest else len(name) != len(head):
            return False
        # A name may be longer than what comes before the last `*`.
        return all(mine in {ANY, theirs} for mine, theirs in zip(head, name, strict=False))


def _check(text: str, segment: str) -> None:
    if not segment:
        raise ValueError(f"`{text}` has an empty segment")
    if ANY in segment and segment != ANY:
        raise ValueError(f"`{text}`: a `*` stands for a whole segment, `{segment}` is none")
    if not segment.isprintable():
        raise ValueError("it contains a character that does not print")
