"""Email by SMTP (RFC 5321): one connection for a batch, and for each recipient what became of it."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from email.message import EmailMessage
from email.utils import parseaddr
from functools import partial
from string import Template
from urllib.parse import unquote, urlsplit

from aiosmtplib import SMTP, SMTPResponseException
from aiosmtplib.errors import SMTPNotSupported, SMTPRecipientsRefused

from storage.users import User

SUBJECT = Template("A message from $sender")
BODY = Template("$nickname,\n\n$message\n\n$sender\n")
TIMEOUT_S = 20.0
PORTS = {"smtp": 587, "smtps": 465}

NO_ADDRESS = "the address cannot be written to"


class Mailer:
    """Sends email. Raises aiosmtplib's connection errors, all of them OSErrors, when the server is away."""

    def __init__(self, url: str, sender_address: str) -> None:
        """`url` is `smtp://user:password@host:587` (TLS where the server has it) or `smtps://…`."""
        self._server = urlsplit(url)
        self._sender_address = sender_address

    async def send(
        self, task_id: str, sender: str, message: str, users: Sequence[User]
    ) -> AsyncIterator[tuple[User, str | None]]:
        """Send the message to users, one by one; for each, None once it is sent, or why it is refused."""
        async with self._connection() as server:
            for user in users:
                yield user, await self._refusal(server, user, partial(self._write, task_id, sender, message))

    async def _refusal(self, server: SMTP, user: User, write: Callable[[User], EmailMessage]) -> str | None:
        if parseaddr(user.email) != ("", user.email):
            return NO_ADDRESS  # it reads as several, or as another's
        try:
            await server.send_message(write(user), sender=self._sender_address, recipients=[user.email])
        except SMTPRecipientsRefused as error:
            return "; ".join(str(each) for each in error.recipients)
        except SMTPResponseException as error:
            return f"{error.code} {error.message}"
        except (SMTPNotSupported, ValueError) as error:
            return f"{NO_ADDRESS}: {error}"
        return None

    def _connection(self) -> SMTP:
        parts = self._server
        return SMTP(
            hostname=parts.hostname,
            port=parts.port or PORTS[parts.scheme],
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            use_tls=parts.scheme == "smtps",
            timeout=TIMEOUT_S,
        )

    def _write(self, task_id: str, sender: str, message: str, user: User) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender_address, user.email
        mail["Subject"] = SUBJECT.substitute(sender=sender)
        # The same whenever it is sent again, so that a mailbox can tell.
        name = hashlib.sha256(f"{task_id}\n{user.user_id}".encode()).hexdigest()[:32]
        mail["Message-ID"] = f"<{name}@{self._sender_address.rpartition('@')[2]}>"
        mail.set_content(BODY.substitute(nickname=user.nickname, message=message, sender=sender))
        return mail
