"""TLS to MariaDB, as its URL asks for it: `?ssl_ca=…`, with `&ssl_cert=…&ssl_key=…` for one of our own.

A server whose certificate cannot be verified, or that offers no TLS, is refused before it hears a password:
aiomysql alone would go on in the clear with a server, or somebody in its place, that says it has no TLS.
"""

import ssl
from typing import Any

from aiomysql import Connection
from pymysql.constants import CLIENT, CR
from pymysql.err import OperationalError
from sqlalchemy import URL

from runtime.config import ConfigError

CA, CERTIFICATE, KEY = "ssl_ca", "ssl_cert", "ssl_key"


class SecureConnection(Connection):  # type: ignore[misc]
    """A connection that goes on over TLS or not at all."""

    async def _get_server_information(self) -> None:
        await super()._get_server_information()
        if not self.server_capabilities & CLIENT.SSL:
            raise _no_tls("the server offers none")


def _no_tls(cause: str) -> OperationalError:
    return OperationalError(CR.CR_SSL_CONNECTION_ERROR, f"No TLS, which database.url asks for: {cause}")


async def connect(**options: Any) -> SecureConnection:
    """A connection, as aiomysql makes it. Raises OperationalError."""
    connection = SecureConnection(**options)
    try:
        await connection._connect()
    except OperationalError as error:
        if isinstance(error.__cause__, ssl.SSLError):  # aiomysql keeps to itself what was wrong
            raise _no_tls(str(error.__cause__)) from error
        raise
    return connection


def secured(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL without what it says of TLS, and the driver's options for that.

    Raises ConfigError for a file that cannot be used, and for parameters of TLS other than these three.
    """
    given = {name: str(value) for name, value in url.query.items() if name.startswith("ssl")}
    if not given:
        return url, {}
    unknown = sorted(given.keys() - {CA, CERTIFICATE, KEY})
    if unknown or CA not in given or (CERTIFICATE in given) != (KEY in given):
        names = ", ".join(given)
        raise ConfigError(
            f"database.url: expected {CA}=FILE, maybe with {CERTIFICATE}=FILE&{KEY}=FILE, got {names}"
        )
    return url.difference_update_query(given), {"ssl": _context(given), "async_creator_fn": connect}


def _context(given: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given[CA])
    except OSError as error:
        raise ConfigError(f"database.url: {CA}: {given[CA]}: cannot be used: {_cause(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if CERTIFICATE in given:
        try:
            context.load_cert_chain(given[CERTIFICATE], given[KEY], password="")
        except OSError as error:
            files = f"{given[CERTIFICATE]}, {given[KEY]}"
            raise ConfigError(f"database.url: {files}: cannot be used: {_cause(error)}") from None
    return context


def _cause(error: OSError) -> str:
    return error.strerror or type(error).__name__
