"""How each of lobbyd's own processes is run by `lobbyctl up`, and how it is seen to be ready."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from redis.exceptions import RedisError

from runtime.config import ENVIRONMENT_PREFIX
from scripts.commands.child import Life, Program
from storage.errors import StoreAway
from storage.servers import Servers

END_MARGIN_S = 15.0
"""What a process gets to end beyond its drain."""


def variable(setting: str) -> str:
    """The environment variable of a setting: `login.admit_rate` → `LOBBYD_LOGIN__ADMIT_RATE`."""
    return ENVIRONMENT_PREFIX + setting.replace(".", "__").upper()


def environment(given: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment `given`, with these settings in place of its own, however it spells theirs."""
    ours = {variable(name): text for name, text in settings.items()}
    return {**{name: text for name, text in given.items() if name.upper() not in ours}, **ours}


class Programs:
    """Makes the programs of one system. `sockets` has the host and port of each node that was ready."""

    def __init__(
        self,
        servers: Servers,
        config_file: Path | None,
        settings: Mapping[str, str],
        logs: Path,
        drain_timeout_s: float,
    ) -> None:
        """`settings` go to every process through its environment, where they override `config_file`."""
        self.sockets: dict[str, tuple[str, int]] = {}
        self._servers = servers
        self._config = [] if config_file is None else ["--config", str(config_file)]
        self._settings = settings
        self._logs = logs
        self._end_s = drain_timeout_s + END_MARGIN_S

    def worker(self, kind: str, number: int) -> Program:
        """One worker, e.g. login-1."""
        process_id = f"{kind}-{number}"

        async def is_ready(life: Life) -> bool:
            return await self._ready_status(process_id, life) is not None

        command = [*_python("workers"), process_id, *self._config]
        return Program(
            process_id,
            command,
            self._log(process_id),
            is_ready,
            self._end_s,
            environment(os.environ, self._settings),
            may_leave=True,
        )

    def node(self, number: int, host: str, port: int) -> Program:
        """One node, e.g. SOCK001. Port 0 becomes the one that it is given at first, for all its lives."""
        process_id = f"SOCK{number:03}"
        given = {**self._settings, "socketd.host": host, "socketd.port": str(port)}
        variables = environment(os.environ, given)

        async def is_ready(life: Life) -> bool:
            status = await self._ready_status(process_id, life)
            if status is None:
                return False
            variables[variable("socketd.port")] = status["port"]
            self.sockets[process_id] = host, int(status["port"])
            return True

        command = [*_python("socketd"), "--server-id", process_id, *self._config]
        return Program(
            process_id, command, self._log(process_id), is_ready, self._end_s, variables, may_leave=True
        )

    def _log(self, process_id: str) -> Path:
        return self._logs / f"{process_id}.log"

    async def _ready_status(self, process_id: str, life: Life) -> dict[str, str] | None:
        """The process's status, if it says that this life of it is READY."""
        try:
            known = await self._servers.get(process_id)
        except (StoreAway, RedisError):
            return None
        # The pid alone could be that of a life on an earlier day.
        of_this_life = (
            known.get("pid") == str(life.pid) and int(known.get("lastHeartbeat", 0)) >= life.started_ms
        )
        return known if of_this_life and known.get("statusCode") == "READY" else None


def _python(module: str) -> list[str]:
    # -P: a folder in the current directory must not pass for one of our packages.
    return [sys.executable, "-P", "-m", module]
