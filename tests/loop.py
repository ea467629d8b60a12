"""The event loop that the tests run on."""

from typing import Any

import pytest
import uvloop


class TimedLoop(uvloop.Loop):
    """uvloop, as in the daemons, but ended by pytest-timeout.

    uvloop catches what a signal handler raises while it waits for input, reports it as a stray exception and
    waits on; a test that hangs would then hang for good.
    """

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise the failure of a test out of `run_forever`; report everything else."""
        exception = context.get("exception")
        if isinstance(exception, pytest.fail.Exception):
            raise exception
        super().call_exception_handler(context)
