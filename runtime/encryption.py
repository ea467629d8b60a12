"""Encryption of what is stored: AES-256-GCM under keys that are derived from the master secret by their ids.

A ciphertext names its key, so whoever has the master secret reads whatever was encrypted with any of them;
which key is to be used for the next text is a fact that processes share (`storage.keyring`).
"""

import base64
import binascii
import os
from collections.abc import Callable
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.sealing import Undecipherable

FORMAT = "v1"
NONCE_BYTES = 12  # what NIST SP 800-38D 5.2.1.1 recommends for GCM; random, so good for 2^32 texts a key
ID_BYTES = 4
KNOWN_KEYS = 256

Derive = Callable[[str], bytes]
"""Derives 32 bytes from the master secret, others for each text."""


class Encryption:
    """Encrypts with one key, the current one, and decrypts what was encrypted with any.

    A key's id is random, followed by as many bytes that only the master secret gives: an id tells whether it
    belongs to the same master secret. The first key, which needs no fact to be known, has an id of its own.
    """

    def __init__(self, derive: Derive) -> None:
        self._derive = derive
        self._aead = lru_cache(KNOWN_KEYS)(self._derived)
        self.first_id = derive("encrypt/key-id").hex()[: 2 * ID_BYTES]
        self.current_id = self.first_id

    def new_id(self) -> str:
        """The id of a key that nobody has used yet."""
        drawn = os.urandom(ID_BYTES).hex()
        return drawn + self._check(drawn)

    def is_ours(self, key_id: str) -> bool:
        """Whether this is the id of a key of our master secret."""
        drawn = key_id[: 2 * ID_BYTES]
        return key_id in (self.first_id, drawn + self._check(drawn))

    def use(self, key_id: str) -> None:
        """Encrypt with this key from now on. Raises Undecipherable for one of another master secret."""
        self._aead(key_id)
        self.current_id = key_id

    def encrypt(self, plaintext: str, context: str) -> str:
        """Encrypt, as `v1.<key id>.<base64url of nonce, ciphertext and tag>`.

        `context` names the one place where the result belongs, e.g. a field of one user; it must be given to
        decrypt.
        """
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._aead(self.current_id).encrypt(nonce, plaintext.encode(), context.encode())
        return f"{prefix(self.current_id)}{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"

    def decrypt(self, ciphertext: str, context: str) -> str:
        """Undo `encrypt`. Raises Undecipherable, in words that show neither text."""
        version, _, rest = ciphertext.partition(".")
        key_id, _, body = rest.partition(".")
        if version != FORMAT:
            raise Undecipherable(f"not a ciphertext of format {FORMAT}")
        aead = self._aead(key_id)
        try:
            sealed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            opened = aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode())
        except (binascii.Error, ValueError, InvalidTag):
            raise Undecipherable("damaged, or not of this context") from None
        return opened.decode()

    def _derived(self, key_id: str) -> AESGCM:
        if not self.is_ours(key_id):
            raise Undecipherable("encrypted with another master secret; every process must have the same one")
        return AESGCM(self._derive("encrypt" if key_id == self.first_id else f"encrypt/{key_id}"))

    def _check(self, drawn: str) -> str:
        return self._derive(f"encrypt/key-id/{drawn}").hex()[: 2 * ID_BYTES]


def prefix(key_id: str) -> str:
    """How every ciphertext of this key begins."""
    return f"{FORMAT}.{key_id}."
