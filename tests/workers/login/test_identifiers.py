"""Ticket ids are signed: one that lobbyd did not make is told from one that it did, without a look-up."""

import itertools
import re

import msgspec
import pytest
from hypothesis import given, strategies as st

from protocol.messages.waiting import ClientId, TicketId
from runtime.secrets import Purpose, Secrets
from workers.login.identifiers import Identifiers

MASTER = b"a master secret of tests and tests alone"
IDENTIFIERS = Identifiers(Secrets(MASTER))
TICKET = IDENTIFIERS.ticket()


def test_ticket_ids_are_signed_random_and_fit_the_wire() -> None:
    tids = {IDENTIFIERS.ticket() for _ in range(1000)}
    assert len(tids) == 1000
    for tid in tids:
        assert re.fullmatch(r"tid_[\w-]{22}\.[\w-]{22}", tid)
        assert msgspec.convert(tid, TicketId) == tid
        assert IDENTIFIERS.is_ticket(tid)


def test_client_ids_are_random_and_fit_the_wire() -> None:
    clients = {IDENTIFIERS.client() for _ in range(1000)}
    assert len(clients) == 1000
    for client in clients:
        assert re.fullmatch(r"client_[\w-]{22}", client)
        assert msgspec.convert(client, ClientId) == client


def test_every_process_with_the_same_master_secret_knows_them() -> None:
    assert Identifiers(Secrets(MASTER)).is_ticket(TICKET)
    assert not Identifiers(Secrets(MASTER + b"!")).is_ticket(TICKET)


@pytest.mark.parametrize("position", range(len(TICKET)))
def test_no_character_can_be_changed(position: int) -> None:
    for other in {"A", "B", ".", "_"} - {TICKET[position]}:
        assert not IDENTIFIERS.is_ticket(TICKET[:position] + other + TICKET[position + 1 :])


@pytest.mark.parametrize(
    "tid",
    [
        "", ".", "tid_", "tid_.", TICKET[:-1], TICKET + "=", TICKET + "A", " " + TICKET, TICKET + "\n",
        TICKET.partition(".")[0], TICKET.partition(".")[2], "." + TICKET.partition(".")[2],
        TICKET.partition(".")[0] + ".", TICKET + "." + TICKET.partition(".")[2], TICKET.upper(),
        TICKET.replace("tid_", "TID_"), "tid_ключ.подпись", "\x00",
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_what_was_not_made_here_is_refused(tid: str) -> None:
    assert not IDENTIFIERS.is_ticket(tid)


@given(st.text())
def test_arbitrary_text_is_refused(tid: str) -> None:
    assert not IDENTIFIERS.is_ticket(tid)


def test_a_signature_for_another_purpose_is_none() -> None:
    body = TICKET.partition(".")[0]
    for purpose in set(Purpose) - {Purpose.TICKET}:
        signature = Secrets(MASTER).sign(purpose, body.encode())
        assert Secrets(MASTER).sign(Purpose.TICKET, body.encode()) != signature
