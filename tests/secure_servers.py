"""Stores that are reached by TLS, with certificates of an authority of the test's own."""

import uuid
from pathlib import Path

from tests.certificates import Authority, Files
from tests.servers import HOST, MariaServer, RedisServer


class SecureRedis(RedisServer):
    """Redis 7 that speaks TLS alone; the embedded Valkey is built without."""

    def __init__(self, folder: Path, authority: Authority, files: Files) -> None:
        super().__init__("redis7", folder / uuid.uuid4().hex)
        self._authority = authority
        self._files = files

    @property
    def address(self) -> str:
        """The server, in a URL."""
        return f"{HOST}:{self.port}/0"

    @property
    def url(self) -> str:
        return f"rediss://{self.address}?ssl_ca_certs={self._authority.certificate}"

    def _prepare(self) -> list[str]:
        return [
            *super()._prepare(),
            *("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(self._files.certificate), "--tls-key-file", str(self._files.key)),
            *("--tls-ca-cert-file", str(self._authority.certificate)),
        ]


class SecureMaria(MariaServer):
    """MariaDB that offers TLS; tests look after it without."""

    def __init__(self, folder: Path, seed: Path, authority: Authority, files: Files) -> None:
        super().__init__(folder / uuid.uuid4().hex, seed)
        self._authority = authority
        self._files = files

    def create_secure_database(self, name: str) -> str:
        """Make an empty database and return the URL by which it is reached over TLS."""
        return f"{self.create_database(name)}?ssl_ca={self._authority.certificate}"

    def do(self, statement: str) -> None:
        """Do something as its administrator would."""
        self._execute(statement)

    def _prepare(self) -> list[str]:
        return [
            *super()._prepare(),
            *(f"--ssl-cert={self._files.certificate}", f"--ssl-key={self._files.key}"),
            f"--ssl-ca={self._authority.certificate}",
        ]
