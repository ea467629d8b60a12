"""The one master secret and what is derived from it: signatures, keyed hashes, encryption.

Every process of a deployment must hold the same master secret. Keys are derived from it by HKDF-SHA256
(RFC 5869), one for each purpose and use, so that nothing made for one can pass for another.
"""

import hmac
import os
import secrets
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from runtime.config import CREDENTIALS_VARIABLE, ConfigError
from runtime.encryption import FORMAT, Encryption
from runtime.sealing import Seals
from runtime.settings import AuthSettings

MINIMUM_BYTES = 32
MINIMUM_VARIETY = 8  # different characters; of 32 random hex digits, fewer once in 10^7
KEY_FILE = "secret.key"
CREDENTIAL = "lobbyd_secret"  # the name to give it in a unit's LoadCredential=


class Purpose(StrEnum):
    """What a signature or a keyed hash is for; the value is part of the derived key and must not change."""

    TICKET = "ticket"
    ACCESS_TOKEN = "access-token"
    REFRESH_TOKEN = "refresh-token"
    EMAIL = "email"
    ADDRESS = "address"
    FINGERPRINT = "fingerprint"
    DRAW = "draw"


class Secrets:
    """Signs, hashes and encrypts with keys derived from one master secret; shows none of them.

    `encryption` is for what is stored, `seals` for what passes between processes.
    """

    __slots__ = ("_hashing", "_sealing", "_signing", "encryption")

    def __init__(self, master: bytes) -> None:
        """Derive all keys. Raises ValueError for a master secret of less than 32 bytes."""
        if len(master) < MINIMUM_BYTES:
            raise ValueError(f"a master secret has at least {MINIMUM_BYTES} bytes")
        self._signing = {purpose: _derive(master, f"sign/{purpose}") for purpose in Purpose}
        self._hashing = {purpose: _derive(master, f"hash/{purpose}") for purpose in Purpose}
        self.encryption = Encryption(partial(_derive, master))
        self._sealing = _derive(master, "seal")

    @classmethod
    def load(cls, auth: AuthSettings, *, environ: Mapping[str, str], data_dir: Path | None) -> "Secrets":
        """Take the first master secret there is.

        In order: `auth.secret`, `auth.secret_file`, the systemd credential `lobbyd_secret`, and `secret.key`
        in `data_dir`, which is made when missing. `data_dir` is for development and the embedded stores; None
        makes a configured secret a must.

        Raises ConfigError, which says what to do, when there is none or it is too short.
        """
        return cls(_find_master(auth, environ, data_dir))

    def __repr__(self) -> str:
        return "<Secrets>"

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        """HMAC-SHA256 of the message: 32 bytes."""
        return hmac.digest(self._signing[purpose], message, "sha256")

    def verify(self, purpose: Purpose, message: bytes, signature: bytes) -> bool:
        """Whether the signature is that of the message, in a time that tells nothing about either."""
        return hmac.compare_digest(self.sign(purpose, message), signature)

    def keyed_hash(self, purpose: Purpose, text: str) -> str:
        """HMAC-SHA256 of the text as 64 hex digits: equal for equal texts, and telling nothing of them."""
        return hmac.digest(self._hashing[purpose], text.encode(), "sha256").hex()

    def seals(self) -> Seals:
        """What this process seals and opens messages with: make one, and share it."""
        return Seals(self._sealing)


def new_secret() -> str:
    """A master secret that nobody has had before: 384 random bits as text."""
    return secrets.token_urlsafe(48)


def _derive(master: bytes, info: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"lobbyd/{FORMAT}/{info}".encode()).derive(
        master
    )


def _find_master(auth: AuthSettings, environ: Mapping[str, str], data_dir: Path | None) -> bytes:
    if auth.secret:
        return _long_enough(auth.secret.encode("utf-8", "surrogateescape"), "auth.secret")
    if auth.secret_file:
        return _read(Path(auth.secret_file), "auth.secret_file")
    if directory := environ.get(CREDENTIALS_VARIABLE):
        credential = Path(directory, CREDENTIAL)
        if credential.exists():
            return _read(credential, "systemd credential")
    if data_dir is not None:
        return _read_or_make(data_dir / KEY_FILE)
    raise ConfigError(
        "auth.secret: there is no master secret; make one with `openssl rand -base64 48` and give it to "
        f"every process as LOBBYD_AUTH__SECRET, auth.secret_file or the systemd credential {CREDENTIAL}"
    )


def _read(path: Path, source: str) -> bytes:
    try:
        return _long_enough(path.read_bytes(), f"{source}: {path}")
    except OSError as error:
        raise ConfigError(f"{source}: {path}: cannot be read: {error.strerror}") from None


def _long_enough(text: bytes, source: str) -> bytes:
    """The secret is the text itself, whether it looks like base64, hex or words: HKDF takes any of them."""
    stripped = text.strip()
    if len(stripped) < MINIMUM_BYTES:
        raise ConfigError(
            f"{source}: expected at least {MINIMUM_BYTES} characters, got {len(stripped)}; "
            "`openssl rand -base64 48` makes a good one"
        )
    if len(set(stripped)) < MINIMUM_VARIETY:
        raise ConfigError(
            f"{source}: expected a random secret, not fewer than {MINIMUM_VARIETY} different characters; "
            "`openssl rand -base64 48` makes a good one"
        )
    return stripped


def _read_or_make(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from None
    return _read(path, "master secret")


def _make(path: Path) -> None:
    """Write a new secret whole or not at all; of several processes that start at once, one wins for all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
