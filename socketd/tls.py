"""TLS at the node's door: the certificate, replaced while connections go on, and the handshakes."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509

from protocol.errors import GoodbyeCode
from runtime.config import ConfigError
from runtime.settings import SocketdSettings
from socketd.registry import Registry

log = structlog.get_logger(__name__)

CANNOT_ACCEPT_PAUSE_S = 0.2
"""Where the machine has no file left for a connection, the next try comes after this time."""


class BadCertificate(Exception):
    """A certificate or key that cannot be used; the text tells people which and why."""


class Certificate:
    """A certificate and its key, in files. `context` is what the next handshake is made with."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises BadCertificate."""
        self._certificate, self._key = certificate, key
        self.context = _context(certificate, key)

    @classmethod
    def configured(cls, settings: SocketdSettings) -> "Certificate | None":
        """The one that the settings name, None where they name none. Raises ConfigError."""
        certificate, key = settings.tls_certificate, settings.tls_key
        if not certificate and not key:
            return None
        if not certificate or not key:
            missing = "tls_key" if certificate else "tls_certificate"
            raise ConfigError(f"socketd.{missing}: missing; a certificate and its key go together")
        try:
            return cls(Path(certificate), Path(key))
        except BadCertificate as error:
            raise ConfigError(f"socketd.tls_certificate: {error}") from None

    def reload(self) -> None:
        """Read the files again, for the handshakes from now on; files that cannot be used change nothing."""
        try:
            self.context = _context(self._certificate, self._key)
        except BadCertificate as error:
            log.error("certificate refused, the one before stays", cause=str(error))
        else:
            log.info("certificate reloaded", certificate=str(self._certificate))


class SecureServer:
    """Listens, makes TLS handshakes and hands over the connections of those that came to a good end.

    A handshake under way counts as a connection of its address.
    """

    def __init__(
        self,
        certificate: Certificate,
        registry: Registry,
        connect: Callable[[], asyncio.Protocol],
        network: Callable[[str], str],
        handshake_timeout_s: float,
    ) -> None:
        """`network` answers what an address counts as."""
        self._certificate = certificate
        self._registry = registry
        self._connect = connect
        self._network = network
        self._timeout_s = handshake_timeout_s
        self._shaking: dict[asyncio.Protocol, str] = {}
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def open(self, host: str, port: int, backlog: int) -> int:
        """Listen on every address of the host. Answers the port. Raises OSError when it cannot be had."""
        flags = socket.AI_PASSIVE
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                listener = socket.create_server(
                    (address[0], port), family=family, backlog=backlog, dualstack_ipv6=False
                )
                self._listeners.append(listener)
                listener.setblocking(False)
                port = listener.getsockname()[1]
        except OSError:
            self._stop_listening()
            raise
        return port

    async def accept(self) -> None:
        """Take connections in until `close`. Runs as a side task."""
        accepting = [self._task(self._accept(listener)) for listener in self._listeners]
        try:
            await asyncio.gather(*accepting)
        finally:
            self._stop_listening()

    def close(self) -> None:
        """Take nobody in any more, and drop those whose handshake is under way."""
        for task in self._tasks:
            task.cancel()

    def made(self, connection: asyncio.Protocol) -> None:
        """The handshake of this connection is over: it counts by itself, or no more."""
        peer = self._shaking.pop(connection, None)
        if peer is not None:
            self._registry.release(peer)

    async def wait_closed(self) -> None:
        """Wait until nothing of it is left but the connections that were handed over."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._stop_listening()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(listener)
            except OSError as error:
                log.error("cannot take a connection in", cause=str(error))
                await asyncio.sleep(CANNOT_ACCEPT_PAUSE_S)
                continue
            peer = self._network(address[0])
            if self._registry.reserve(peer):
                self._task(self._shake_hands(accepted, peer))
            else:
                log.debug("goodbye", code=GoodbyeCode.TOO_MANY_CONNECTIONS.code)
                accepted.close()  # a handshake, just to say so, is what a flood would want
            await asyncio.sleep(0)

    async def _shake_hands(self, accepted: socket.socket, peer: str) -> None:
        connection = self._connect()
        self._shaking[connection] = peer
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._timeout_s,
            )
        except ConnectionAbortedError:
            log.debug("goodbye", code=GoodbyeCode.HANDSHAKE_TIMEOUT.code)
        except OSError as error:
            log.debug("no handshake", cause=str(error))
        finally:
            self.made(connection)

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    _check_dates(certificate)
    _read(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whoever renegotiates again and again costs the node a handshake each time.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=lambda: _refuse_passphrase(key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(f"{key} is not the key of {certificate}") from None
        raise BadCertificate(f"{certificate}, {key}: not a certificate and its key in PEM") from None
    return context


def _check_dates(path: Path) -> None:
    try:
        first, *_ = x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise BadCertificate(f"{path}: not a certificate in PEM") from None
    now = datetime.now(UTC)
    if first.not_valid_after_utc <= now:
        raise BadCertificate(f"{path}: expired at {first.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if first.not_valid_before_utc > now:
        raise BadCertificate(f"{path}: valid only from {first.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"{path}: cannot be read: {error.strerror}") from None


def _refuse_passphrase(key: Path) -> str:
    raise BadCertificate(f"{key}: is behind a passphrase; a process has nobody to type it")
