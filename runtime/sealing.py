"""Sealing: what passes between two processes through a store that must not know it.

Each process seals with a key of its own, derived from the shared one and a salt that it draws when it
starts, and counts its nonces: none is ever used twice, however much is sealed (NIST SP 800-38D 8.2.1; random
ones would be good for 2^32 texts a key, which is days of a busy system). A sealed message names its salt,
from which every process that has the master secret derives the key again.
"""

import hmac
import itertools
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"\x01"
SALT_BYTES = 16
COUNTER_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = len(FORMAT) + SALT_BYTES + COUNTER_BYTES + TAG_BYTES

KNOWN_SEALERS = 1024
"""Keys of other processes that are remembered; one that is not costs 10 µs."""


class Undecipherable(Exception):
    """A ciphertext that is damaged, belongs to another context, or was made with another master secret."""


class Seals:
    """Seals messages with AES-256-GCM, and opens those of every process that shares the key."""

    def __init__(self, key: bytes) -> None:
        """`key` has 32 bytes, the same in every process."""
        salt = os.urandom(SALT_BYTES)
        self._aead = _derived(key, salt)
        self._prefix = FORMAT + salt
        self._counter = itertools.count()
        self._of = lru_cache(KNOWN_SEALERS)(lambda salt: _derived(key, salt))

    def __repr__(self) -> str:
        return "<Seals>"

    def seal(self, message: bytes, context: bytes) -> bytes:
        """Seal a message, OVERHEAD_BYTES longer than it. `context` must be given to open it."""
        nonce = next(self._counter).to_bytes(COUNTER_BYTES, "big")
        return self._prefix + nonce + self._aead.encrypt(nonce, message, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Undo `seal`. Raises Undecipherable, in words that do not show the message."""
        if len(sealed) < OVERHEAD_BYTES or not sealed.startswith(FORMAT):
            raise Undecipherable("not sealed")
        salt_end = len(FORMAT) + SALT_BYTES
        nonce_end = salt_end + COUNTER_BYTES
        aead = self._of(sealed[len(FORMAT) : salt_end])
        try:
            return aead.decrypt(sealed[salt_end:nonce_end], sealed[nonce_end:], context)
        except InvalidTag:
            raise Undecipherable(
                "damaged, not of this context, or sealed with another master secret; "
                "every process must have the same one"
            ) from None


def _derived(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, salt, "sha256"))
