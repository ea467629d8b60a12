"""The environment of programs that are not ours."""

import subprocess
import sys
from ctypes.util import find_library

import pytest

from runtime import memory


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_program_allocates_by_jemalloc_where_it_is_installed() -> None:
    command = ["cat", "/proc/self/maps"]
    mapped = subprocess.run(
        command, env=memory.environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert ("jemalloc" in mapped.stdout) == (find_library("jemalloc") is not None)
    assert mapped.stderr == ""


def test_what_an_operator_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.environment()["MALLOC_TRIM_THRESHOLD_"] == str(memory.KEPT_BYTES)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert memory.environment()["MALLOC_TRIM_THRESHOLD_"] == "1"
