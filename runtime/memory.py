"""How a process treats its memory: it keeps what is freed, and does not look again at what lives long.

glibc gives what is freed back to the system when it was large, or at the top: each message of 1 MB then costs
hundreds of page faults, which were two thirds of a node's time in an upload.
"""

import ctypes
import gc
import os
from ctypes.util import find_library

KEPT_BYTES = 8 * 2**20
"""Free memory that a process keeps, and the size from which a piece is given back as soon as it is freed."""

ARENAS = 2
"""From which threads allocate: each keeps what was freed in it, and glibc makes 8 for each processor."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3), malloc.h
_COLLECT_AFTER = (20_000, 20, 50)  # new objects, and collections of one generation before the next one's


def keep_freed() -> None:
    """Keep freed memory for what comes next. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)


def environment() -> dict[str, str]:
    """Ours, and the same for a program that is not (mallopt(3); one with another allocator does not heed it).

    Where jemalloc is installed it takes the place of glibc's allocator: packages of Redis and Valkey are
    built with it, the embedded Valkey is not, which costs it a sixth of its time (docs/performance.md).
    """
    environ = {"MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES)}
    jemalloc = find_library("jemalloc")
    if jemalloc is not None:
        environ["LD_PRELOAD"] = jemalloc
    return environ | os.environ


def settle() -> None:
    """Have the collector pass over what lives as long as the process, and come by less often.

    By default it looks at everything after every 700 new objects, which cost a fifth of a busy worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
