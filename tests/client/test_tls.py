"""The same over TLS."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client import Connection, Player
from protocol.messages.connection import Ping, Pong
from tests.client.peer import Peer


@pytest.fixture
def server_side(tmp_path: Path) -> ssl.SSLContext:
    """A server's context, with its certificate for `localhost` in `tmp_path / "cert.pem"`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


async def test_request_over_tls(server_side: ssl.SSLContext, tmp_path: Path) -> None:
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with Peer(ssl=server_side) as peer:
        connection = await Connection.open("localhost", peer.endpoint[1], ssl=trusting)
        assert isinstance(await connection.request(Ping()), Pong)
        connection.close()
        await connection.closed


async def test_certificate_that_is_not_trusted_ends_the_player(server_side: ssl.SSLContext) -> None:
    async with Peer(ssl=server_side) as peer:
        player = Player([("localhost", peer.endpoint[1])], ssl=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            await player.request(Ping())
