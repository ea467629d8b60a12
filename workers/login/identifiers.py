"""Ticket ids and client ids: random, and a ticket's signed, so that a made-up one costs no look-up."""

import base64
import secrets

from runtime.secrets import Purpose, Secrets

PREFIX = "tid_"
RANDOM_BYTES = 16
SIGNATURE_BYTES = 16


class Identifiers:
    """Makes ids, and tells a ticket id that lobbyd made from one that it did not."""

    def __init__(self, keys: Secrets) -> None:
        self._keys = keys

    def ticket(self) -> str:
        """A new ticket id: `tid_`, random, a dot, and a truncated HMAC-SHA256 of what comes before."""
        body = f"{PREFIX}{_text(secrets.token_bytes(RANDOM_BYTES))}"
        return f"{body}.{self._signature(body)}"

    def is_ticket(self, tid: str) -> bool:
        """Whether `tid` bears our signature, in a time that tells nothing about the right one."""
        body, _, signature = tid.rpartition(".")
        return secrets.compare_digest(signature.encode(), self._signature(body).encode())

    @staticmethod
    def client() -> str:
        """A new client id."""
        return f"client_{_text(secrets.token_bytes(RANDOM_BYTES))}"

    def _signature(self, body: str) -> str:
        return _text(self._keys.sign(Purpose.TICKET, body.encode())[:SIGNATURE_BYTES])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
