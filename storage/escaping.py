"""Texts that others chose, as parts of names and lines that we make: percent-encoded where they must be.

What is escaped can be read back, so two texts never look alike, and whatever somebody calls themselves
parts no key and begins no line.
"""


def escaped(text: str, reserved: str) -> str:
    """`text` with `%`, the `reserved` characters and all that does not print percent-encoded, as in URLs."""
    return "".join(letter if _is_plain(letter, reserved) else _encoded(letter) for letter in text)


def _is_plain(letter: str, reserved: str) -> bool:
    return letter.isprintable() and letter != "%" and letter not in reserved


def _encoded(letter: str) -> str:
    # A lone surrogate is what Python makes of a command line that is not UTF-8.
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
