"""Email, to a mail server that really answers."""

import uuid
from collections.abc import Iterator
from email.message import Message as Mail
from pathlib import Path
from typing import cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import AsyncMessage
from aiosmtpd.smtp import SMTP, Envelope, Session

from protocol.messages.portal import Channel, TaskType
from tests.servers import HOST, free_port
from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.portal.asking import Player, ended, signed_in, submit

pytestmark = pytest.mark.servers


class Mailbox(AsyncMessage):
    """Keeps what is sent to it, and refuses those who are called so."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Mail] = []

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_message(self, message: Mail) -> None:
        self.mails.append(message)


@pytest.fixture(scope="module")
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    """A mail server: what it got, and its port."""
    mailbox, port = Mailbox(), free_port()
    controller = Controller(mailbox, hostname=HOST, port=port)
    controller.start()
    yield mailbox, port
    controller.stop()


@pytest.fixture(scope="module")
def portal(servers_folder: Path, mailbox: tuple[Mailbox, int]) -> Iterator[Cluster]:
    """A node, a login worker and a portal worker that knows the mail server."""
    settings = {"portal.smtp_url": f"smtp://{HOST}:{mailbox[1]}"}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start().start_worker("portal")
        yield cluster


async def test_email_reaches_a_mail_server_and_its_refusals_are_told(
    portal: Cluster, mailbox: tuple[Mailbox, int]
) -> None:
    admin = await signed_in(portal, role="ADMIN")
    reader, refused = await signed_in(portal), await Player.at(portal["SOCK001"].endpoint)
    await refused.register("refused-player")

    accepted = await submit(
        admin,
        task_type=TaskType.NOTIFICATION,
        channel=Channel.EMAIL,
        message="점검이 있습니다",
        recipients=(reader.name, "refused-player", "nobody-at-all"),
    )

    result = (await ended(admin, accepted.task_id)).result
    assert (result["sentCount"], result["failedCount"]) == (1, 2)
    reasons = {each["userId"]: each["reason"] for each in result["failed"]}
    assert "no such mailbox" in reasons["refused-player"]
    (mail,) = mailbox[0].mails
    assert mail["To"] == f"{reader.name}@example.com"
    assert "점검이 있습니다" in cast(bytes, mail.get_payload(decode=True)).decode()
    for guest in (admin, reader, refused):
        guest.leave()
