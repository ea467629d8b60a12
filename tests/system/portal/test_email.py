"""Email, to a mail server that really answers."""

import asyncio
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from email.message import Message as Mail
from pathlib import Path
from typing import cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import AsyncMessage
from aiosmtpd.smtp import SMTP, Envelope, Session

from protocol.messages.portal import Channel, TaskType
from tests.servers import HOST, free_port
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.guest import Guest, registration
from tests.system.portal.asking import Player, ended, signed_in, submit
from workers.portal.email import NO_ADDRESS

pytestmark = pytest.mark.servers


class Mailbox(AsyncMessage):
    """Keeps what is sent to it, and refuses those who are called so. `on_mail` may do more."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Mail] = []
        self.on_mail: Callable[[], None] = lambda: None

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_message(self, message: Mail) -> None:
        self.mails.append(message)
        self.on_mail()

    def to(self, address: str) -> list[Mail]:
        """The mails that were sent to an address, whatever their headers say."""
        return [mail for mail in self.mails if mail["X-RcptTo"] == address]


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
    settings = {"portal.smtp_url": f"smtp://{HOST}:{mailbox[1]}", "queues.lease_s": 0.5}
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
    (mail,) = mailbox[0].to(f"{reader.name}@example.com")
    assert mail["To"] == f"{reader.name}@example.com"
    assert "점검이 있습니다" in cast(bytes, mail.get_payload(decode=True)).decode()
    for guest in (admin, reader, refused):
        guest.leave()


async def test_a_mailing_whose_worker_is_killed_sends_one_mail_again_at_most(
    portal: Cluster, mailbox: tuple[Mailbox, int]
) -> None:
    admin = await signed_in(portal, role="ADMIN")
    readers = [await signed_in(portal) for _ in range(6)]
    addresses = [f"{reader.name}@example.com" for reader in readers]
    already = len(mailbox[0].mails)

    def kill_at_the_third() -> None:
        if len(mailbox[0].mails) == already + 3:
            portal["portal-1"].kill()

    mailbox[0].on_mail = kill_at_the_third
    accepted = await submit(
        admin,
        task_type=TaskType.NOTIFICATION,
        channel=Channel.EMAIL,
        message="hi",
        recipients=tuple(reader.name for reader in readers),
    )
    await eventually(lambda: portal["portal-1"].exit_code is not None, "it is killed")
    mailbox[0].on_mail = lambda: None
    await asyncio.to_thread(portal.start_worker, "portal")

    result = (await ended(admin, accepted.task_id)).result
    assert (result["sentCount"], result["failedCount"]) == (6, 0)
    sent = mailbox[0].mails[already:]
    counts = Counter(str(mail["X-RcptTo"]) for mail in sent)
    assert set(counts) == set(addresses)
    assert sorted(counts.values()) == [1, 1, 1, 1, 1, 2]
    assert counts[str(sent[2]["X-RcptTo"])] == 2, "it was taken, and nobody could note that"
    assert len({mail["Message-ID"] for mail in sent}) == 6
    for guest in (admin, *readers):
        guest.leave()


async def test_a_message_stays_in_the_body_of_its_mail(portal: Cluster, mailbox: tuple[Mailbox, int]) -> None:
    admin, reader = await signed_in(portal, role="ADMIN"), await signed_in(portal)
    message = (
        "Bcc: thief@example.com\r\n\r\n.\r\nRSET\r\nMAIL FROM:<thief@example.com>\r\n"
        "RCPT TO:<thief@example.com>\r\nDATA\r\nSubject: stolen\r\n\r\nhi\r\n.\r\n"
    )
    already = len(mailbox[0].mails)

    accepted = await submit(
        admin,
        task_type=TaskType.NOTIFICATION,
        channel=Channel.EMAIL,
        message=message,
        recipients=(reader.name,),
    )

    assert (await ended(admin, accepted.task_id)).result["sentCount"] == 1
    (mail,) = mailbox[0].mails[already:]
    assert mail["X-RcptTo"] == mail["To"] == f"{reader.name}@example.com"
    assert (mail["Bcc"], mail["Subject"]) == (None, f"A message from {admin.name}")
    body = cast(bytes, mail.get_payload(decode=True)).decode()
    assert re.sub(r"\s+", " ", message).strip() in re.sub(r"\s+", " ", body)
    for guest in (admin, reader):
        guest.leave()


async def test_one_strange_address_costs_the_others_nothing(
    portal: Cluster, mailbox: tuple[Mailbox, int]
) -> None:
    admin, reader = await signed_in(portal, role="ADMIN"), await signed_in(portal)
    strangers = {
        f"comma-{uuid.uuid4().hex[:8]}": "thief,{}@example.com",
        f"angle-{uuid.uuid4().hex[:8]}": "{}<thief>@example.com",
        f"group-{uuid.uuid4().hex[:8]}": "all:{}@example.com;",
        f"korean-{uuid.uuid4().hex[:8]}": "보라{}@example.com",
        f"quote-{uuid.uuid4().hex[:8]}": '"{}@example.com',
    }
    for name, address in strangers.items():
        guest = await Guest.at(portal["SOCK001"].endpoint)
        await guest.ask(registration(name, email=address.format(name)))
        guest.leave()
    for inject in ("{}@example.com\r\nBcc: thief@example.com", "{}@example.com\nx", "{} @example.com"):
        name = f"inject-{uuid.uuid4().hex[:8]}"
        await admin.refused(registration(name, email=inject.format(name)), "INVALID_REQUEST")
    already = len(mailbox[0].mails)

    accepted = await submit(
        admin,
        task_type=TaskType.NOTIFICATION,
        channel=Channel.EMAIL,
        message="hi",
        recipients=(*strangers, reader.name),
    )

    result = (await ended(admin, accepted.task_id)).result
    assert result["sentCount"] + result["failedCount"] == 1 + len(strangers)
    refused = {each["userId"]: each["reason"] for each in result["failed"]}
    assert {name.partition("-")[0] for name in refused} >= {"comma", "angle", "group", "quote"}
    assert reader.name not in refused
    assert set(refused.values()) == {NO_ADDRESS}
    sent = {str(mail["X-RcptTo"]) for mail in mailbox[0].mails[already:]}
    assert f"{reader.name}@example.com" in sent
    assert len(sent) == result["sentCount"]
    assert not any("thief" in address for address in sent)
    for guest in (admin, reader):
        guest.leave()
