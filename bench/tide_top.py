"""A picture of the real `lobbyctl top` in a terminal of its own: Textual takes it."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

from bench.harness import CannotMeasure

LOBBYCTL = str(Path(sys.executable).with_name("lobbyctl"))
ROWS, COLUMNS = 44, 120
AFTER_S = 4
PATIENCE_S = 30.0
LOOK_S = 0.2


async def picture_of_top(data_dir: Path, file: Path) -> None:
    """Take it as SVG. Raises CannotMeasure where there is none in time."""
    environ = _environ(file)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, os.read, ours, 65_536)  # a terminal that nobody reads would stop it
    process = await asyncio.create_subprocess_exec(
        LOBBYCTL, "top", "--data-dir", str(data_dir), stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not _is_whole(file):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise CannotMeasure(f"lobbyctl top took no picture within {PATIENCE_S:g} s") from None
    finally:
        # It only looks on, and does not end by itself after a picture.
        process.kill()
        await process.wait()
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
    _without_fonts(file)


def _environ(file: Path) -> dict[str, str]:
    """What has Textual take a picture into this file, where there is none any more."""
    file.unlink(missing_ok=True)
    return {
        **os.environ,
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "TEXTUAL_SCREENSHOT": str(AFTER_S),
        "TEXTUAL_SCREENSHOT_LOCATION": str(file.parent),
        "TEXTUAL_SCREENSHOT_FILENAME": file.name,
    }


def _is_whole(file: Path) -> bool:
    return file.exists() and file.read_text("utf-8").rstrip().endswith("</svg>")


def _without_fonts(file: Path) -> None:
    # Its letters are those of the reader's own machine: no font is fetched to look at it.
    text = re.sub(r"@font-face\s*\{.*?\}\s*", "", file.read_text("utf-8"), flags=re.DOTALL)
    file.write_text(text, "utf-8")
