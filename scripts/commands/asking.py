"""Asking who types before something is done."""

import signal
import sys


def says_yes(question: str) -> bool:
    """Ask; the end of the input and Ctrl-C are a no, and say that nothing was changed.

    The loop's own handler would only note Ctrl-C, and the question go on.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(question, "[y/N] ", end="", file=sys.stderr, flush=True)
        is_yes = sys.stdin.readline().strip().lower() in {"y", "yes"}
    except KeyboardInterrupt:
        print(file=sys.stderr)
        is_yes = False
    finally:
        signal.signal(signal.SIGINT, handler)
    if not is_yes:
        print("Nothing was changed.", file=sys.stderr)
    return is_yes
