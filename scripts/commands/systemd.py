"""Workers that systemd keeps alive, as instances of the unit `lobbyd-worker@.service`."""

import asyncio
import re
from collections.abc import Sequence

from scripts.commands.scaler import CannotAct

ALIVE_STATES = "active,activating,reloading"
NUMBERED = re.compile(r"lobbyd-worker@(\w+-[1-9]\d*)\.service")
"""Units that come and go. One without a number, such as `lobbyd-worker@login`, is an operator's and stays."""


class Systemd:
    """Starts and stops numbered workers of this machine through `systemctl`. Raises CannotAct."""

    def named(self, worker_id: str) -> str:
        """A worker's unit."""
        return f"lobbyd-worker@{worker_id}.service"

    async def workers(self, kind: str) -> Sequence[str]:
        """The numbered workers of a kind that are up or come up, the first ones first."""
        pattern = self.named(f"{kind}-*")
        listed = await _systemctl(
            "list-units", "--plain", "--full", "--no-legend", "--no-pager", f"--state={ALIVE_STATES}", pattern
        )
        units = [line.split(maxsplit=1)[0] for line in listed.splitlines() if line.strip()]
        found = [match[1] for match in map(NUMBERED.fullmatch, units) if match]
        return sorted(found, key=lambda worker_id: int(worker_id.rpartition("-")[2]))

    async def start(self, worker_id: str) -> None:
        """Start a worker's unit, and wait until it is ready."""
        await _systemctl("start", self.named(worker_id))

    async def end(self, worker_id: str) -> None:
        """Stop a worker's unit, which drains, and wait until it has ended."""
        await _systemctl("stop", self.named(worker_id))


async def _systemctl(*arguments: str) -> str:
    """What `systemctl` prints."""
    try:
        process = await asyncio.create_subprocess_exec(
            "systemctl",
            "--no-ask-password",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CannotAct(f"systemctl cannot be run: {error.strerror}") from None
    printed, complaint = await process.communicate()
    if process.returncode:
        said = " ".join(complaint.decode(errors="replace").split())
        raise CannotAct(f"systemctl {arguments[0]}: {said or f'exit code {process.returncode}'}")
    return printed.decode(errors="replace")
