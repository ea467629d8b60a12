"""Accounts and the waiting room: every answer that `auth.register`, `auth.login`, `queue.*` and
`auth.finalize` have, from real workers."""

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from protocol.messages.auth import LoggedIn, Login, Registered
from protocol.messages.connection import Goodbye, KickedOut
from protocol.messages.waiting import Cancel, Cancelled, Stream, TicketStatus
from storage import keys
from storage.tickets import Tickets
from tests.system.cluster import Cluster, Process
from tests.system.conftest import run_house
from tests.system.guest import PASSWORD, Guest, Pass, registration

pytestmark = pytest.mark.servers

ROOM = 20
"""Places in the waiting room of `still`."""

PLACE_S = 7200
"""Time from one turn to the next there: longer than its tests take, however busy the machine is."""


@pytest.fixture(scope="module")
def still(servers_folder: Path) -> Iterator[Cluster]:
    """A house that has admitted one player, and admits no other while it stands: everybody waits."""
    settings = {
        "login.admit_rate": 1,
        "login.max_queue_length": ROOM,
        "limits.login_attempts_per_minute": 3,
    }
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        node = cluster.start()["SOCK001"]

        async def take_the_first_place(node: Process = node) -> None:
            guest = await Guest.at(node.endpoint)
            await guest.sign_up("the-first")
            guest.leave()

        asyncio.run(take_the_first_place())
        cluster.redis.hset(keys.PORTAL_CONFIG, "totalRate", 60 / PLACE_S)
        yield cluster


@pytest.fixture
async def waiting(still: Cluster) -> AsyncIterator[Guest]:
    """Somebody in the house where everybody waits."""
    guest = await Guest.at(still["SOCK001"].endpoint)
    yield guest
    guest.leave()


async def ledger_holds(cluster: Cluster) -> dict[str, float]:
    """See that the ledger of admission holds. Answers it."""
    redis = Redis.from_url(str(cluster.settings["redis.url"]))
    ledger = await Tickets(redis, 900).ledger()
    await redis.aclose()
    parts = ("waiting", "ready", "consumed", "cancelled", "expired")
    assert ledger["issued"] == sum(ledger[part] for part in parts), ledger
    return ledger


class TestRegister:
    async def test_the_user_id_is_the_folded_username(self, guest: Guest, name: str) -> None:
        answer = await guest.ask(registration(name.upper()))

        assert answer == Registered(user_id=name)

    async def test_a_taken_username(self, guest: Guest, name: str) -> None:
        await guest.register(name)

        again = registration(name.capitalize(), email=f"{name}@example.org")

        assert (await guest.refused(again, "USERNAME_TAKEN")).status == 409

    async def test_a_taken_email(self, guest: Guest, name: str) -> None:
        await guest.register(name)

        other = registration(f"{name}-2", email=f"{name}@EXAMPLE.com")

        assert (await guest.refused(other, "EMAIL_TAKEN")).status == 409

    async def test_what_redis_has_forgotten_is_taken_all_the_same(
        self, house: Cluster, guest: Guest, name: str
    ) -> None:
        await guest.register(name)
        house.redis.delete(keys.USERNAMES, keys.EMAILS, keys.user(name))

        await guest.refused(registration(name, email=f"{name}@example.org"), "USERNAME_TAKEN")
        await guest.refused(registration(f"{name}-2", email=f"{name}@example.com"), "EMAIL_TAKEN")

        assert await guest.log_in(name)

    async def test_racing_for_a_name(self, house: Cluster, name: str) -> None:
        guests = [await Guest.at(house["SOCK001"].endpoint) for _ in range(20)]

        answers = await asyncio.gather(
            *(
                guest.ask(registration(name, f"password {number}", f"{name}-{number}@example.com"))
                for number, guest in enumerate(guests)
            ),
            return_exceptions=True,
        )

        (winner,) = [number for number, answer in enumerate(answers) if isinstance(answer, Registered)]
        assert {str(a).partition(":")[0] for a in answers if isinstance(a, Exception)} == {"USERNAME_TAKEN"}
        await guests[0].ask(Login(username=name, password=f"password {winner}"))
        for guest in guests:
            guest.leave()

    async def test_too_many_accounts_from_an_address(self, cluster: Cluster) -> None:
        cluster.settings["limits.registrations_per_ip_per_hour"] = 2
        node = cluster.start()["SOCK001"]
        guest = await Guest.at(node.endpoint)
        await guest.register("one")
        await guest.refused(registration("one"), "USERNAME_TAKEN")
        await guest.register("two")

        refusal = await guest.refused(registration("three"), "TOO_MANY_ATTEMPTS")

        assert refusal.status == 429
        assert refusal.retry_after_ms is not None
        assert 0 < refusal.retry_after_ms <= 3_600_000
        elsewhere = await Guest.at(node.endpoint, local_address="127.0.0.2")
        await elsewhere.register("three")
        guest.leave()
        elsewhere.leave()


class TestLogin:
    async def test_the_answer(self, waiting: Guest, name: str) -> None:
        await waiting.register(name)

        answer = cast(LoggedIn, await waiting.ask(Login(username=name.upper(), password=PASSWORD)))

        assert answer.queue_type == "portal"
        assert answer.status is TicketStatus.PENDING
        assert 1 <= answer.position <= answer.total_waiting
        assert answer.estimated_wait_sec is not None, "the first has come in"
        assert (answer.position - 1) * PLACE_S <= answer.estimated_wait_sec <= answer.position * PLACE_S + 1
        ticket = Pass.of(answer)
        await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    async def test_wrong_credentials(self, guest: Guest, name: str) -> None:
        await guest.register(name)

        wrong = await guest.refused(Login(username=name, password="not this one"), "INVALID_CREDENTIALS")
        unknown = await guest.refused(Login(username=f"{name}-2", password=PASSWORD), "INVALID_CREDENTIALS")

        assert (wrong.status, str(wrong)) == (401, str(unknown))

    async def test_a_second_login_keeps_the_place(self, waiting: Guest, still: Cluster, name: str) -> None:
        await waiting.register(name)
        first = await waiting.log_in(name)
        place = await waiting.stream(first)
        other = await Guest.at(still["SOCK001"].endpoint)

        second = await other.log_in(name)

        assert (second.tid, second.client_id == first.client_id) == (first.tid, False)
        kicked = await waiting.hear(KickedOut)
        assert kicked.reason == "TAKEN_OVER"
        assert kicked.message == "다른 곳에서 로그인되어 연결이 종료되었습니다."
        goodbye = await waiting.hear(Goodbye)
        assert (goodbye.code, goodbye.reconnect) == ("TAKEN_OVER", False)
        assert (await other.stream(second)).position == place.position
        await other.refused(first.stream, "SESSION_TAKEN_OVER")
        await other.ask(Cancel(tid=second.tid, client_id=second.client_id))
        other.leave()

    async def test_too_many_attempts(self, waiting: Guest, still: Cluster, name: str) -> None:
        await waiting.register(name)
        for _ in range(3):
            await waiting.refused(Login(username=name, password="not this one"), "INVALID_CREDENTIALS")

        refusal = await waiting.refused(Login(username=name, password=PASSWORD), "TOO_MANY_ATTEMPTS")

        assert refusal.status == 429
        assert refusal.retry_after_ms is not None
        assert 0 < refusal.retry_after_ms <= 60_000
        await waiting.refused(Login(username=f"{name}-2", password=PASSWORD), "INVALID_CREDENTIALS")
        elsewhere = await Guest.at(still["SOCK001"].endpoint, local_address="127.0.0.2")
        ticket = await elsewhere.log_in(name)
        elsewhere.leave()
        still.redis.delete(*still.redis.keys(keys.limit("failed-login", f"{name}:*")))  # a minute passes
        ticket = await waiting.log_in(name)
        await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    async def test_a_disabled_account(self, house: Cluster, guest: Guest, name: str) -> None:
        tokens = await guest.sign_up(name)
        other = await Guest.at(house["SOCK001"].endpoint)
        ticket = await other.log_in(name)
        await other.wait(ticket)
        path = str(house.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database, database:
            database.execute("UPDATE users SET status = 'DISABLED' WHERE user_id = ?", (name,))
        house.redis.delete(keys.user(name))

        refusal = await other.refused(Login(username=name, password=PASSWORD), "ACCOUNT_DISABLED")
        assert refusal.status == 403
        await other.refused(Login(refresh_token=tokens.refresh_token), "ACCOUNT_DISABLED")
        await other.refused(Login(username=name, password="not this one"), "INVALID_CREDENTIALS")
        await other.refused(ticket.finalize, "ACCOUNT_DISABLED")
        other.leave()

    async def test_a_full_room(self, waiting: Guest, still: Cluster, name: str) -> None:
        tickets = []
        for number in range(ROOM):
            await waiting.register(f"{name}-{number}")
            tickets.append(await waiting.log_in(f"{name}-{number}"))
        await waiting.register(name)

        refusal = await waiting.refused(Login(username=name, password=PASSWORD), "QUEUE_FULL")

        assert refusal.status == 503
        assert refusal.retry_after_ms is not None
        assert refusal.retry_after_ms > 0
        assert not still.redis.exists(keys.user_ticket(name))
        assert (await waiting.log_in(f"{name}-0")).tid == tickets[0].tid
        await waiting.ask(Cancel(tid=tickets[1].tid, client_id=tickets[1].client_id))
        last = await waiting.log_in(name)
        tickets[0] = await waiting.log_in(f"{name}-0")
        for ticket in (tickets[0], last, *tickets[2:]):
            await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))
        assert (await ledger_holds(still))["waiting"] == 0


class TestStream:
    async def test_the_answer(self, waiting: Guest, name: str) -> None:
        await waiting.register(name)
        ticket = await waiting.log_in(name)

        place = await waiting.stream(ticket)

        assert place.status is TicketStatus.PENDING
        assert 1 <= place.position <= place.total_waiting
        assert place.estimated_wait_sec is not None
        assert (place.position - 1) * PLACE_S <= place.estimated_wait_sec <= place.position * PLACE_S + 1
        await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    async def test_tickets_that_are_not_ours(self, guest: Guest, name: str) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        body, _, signature = ticket.tid.partition(".")
        forged = f"{body}.{signature[:-2]}{'A' if signature[-2] != 'A' else 'B'}{signature[-1]}"

        for tid in ("tid_unknown", ".", "", forged, body, f"{ticket.tid}x", "티켓"):
            code = "TICKET_NOT_FOUND" if tid else "INVALID_REQUEST"
            await guest.refused(Stream(tid=tid, client_id=ticket.client_id), code)
            await guest.refused(Cancel(tid=tid, client_id=ticket.client_id), code)
            await guest.refused(Pass(tid, ticket.client_id).finalize, code)

    async def test_another_client_id(self, waiting: Guest, name: str) -> None:
        await waiting.register(name)
        ticket = await waiting.log_in(name)

        refusal = await waiting.refused(Stream(tid=ticket.tid, client_id="another"), "SESSION_TAKEN_OVER")

        assert refusal.status == 409
        await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    async def test_a_ready_ticket_says_so_again(self, house: Cluster, guest: Guest, name: str) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        await guest.wait(ticket)
        other = await Guest.at(house["SOCK001"].endpoint)

        place = await other.stream(ticket)

        assert (place.status, place.position) == (TicketStatus.READY, 0)
        assert (await guest.gone()).code == "TAKEN_OVER"
        assert (await other.finalize(ticket)).user_id == name
        other.leave()


class TestCancel:
    async def test_a_waiting_ticket(self, waiting: Guest, still: Cluster, name: str) -> None:
        await waiting.register(name)
        ticket = await waiting.log_in(name)
        cancel = Cancel(tid=ticket.tid, client_id=ticket.client_id)

        assert await waiting.ask(cancel) == Cancelled(status=TicketStatus.CANCELLED)

        assert still.redis.hget(keys.ticket(ticket.tid), "status") == "CANCELLED"
        assert (await waiting.refused(cancel, "TICKET_NOT_FOUND")).status == 404
        await waiting.refused(ticket.stream, "TICKET_NOT_FOUND")
        await waiting.refused(ticket.finalize, "TICKET_NOT_FOUND")
        fresh = await waiting.log_in(name)
        assert fresh.tid != ticket.tid
        await waiting.ask(Cancel(tid=fresh.tid, client_id=fresh.client_id))
        await ledger_holds(still)

    async def test_a_ready_ticket(self, guest: Guest, house: Cluster, name: str) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        await guest.wait(ticket)

        await guest.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

        await guest.refused(ticket.finalize, "TICKET_NOT_FOUND")
        await ledger_holds(house)

    async def test_another_client_id(self, waiting: Guest, name: str) -> None:
        await waiting.register(name)
        ticket = await waiting.log_in(name)

        refusal = await waiting.refused(Cancel(tid=ticket.tid, client_id="another"), "SESSION_TAKEN_OVER")

        assert refusal.status == 409
        await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))


class TestFinalize:
    async def test_the_answer(self, guest: Guest, house: Cluster, name: str) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        await guest.wait(ticket)

        tokens = await guest.finalize(ticket)

        assert (tokens.user_id, tokens.token_type, tokens.expires_in) == (name, "Bearer", 900)
        assert house.redis.hget(keys.ticket(ticket.tid), "status") == "CONSUMED"
        session = house.redis.hgetall(keys.session(name))
        assert session["serverId"] == "SOCK001"
        assert session["login_count"] == "1"
        assert {"last_login", "role", "permissions", "connectionId", "epoch"} <= session.keys()
        stored = house.redis.hgetall(keys.refresh_tokens(name))
        assert {"token", "expires_at", "role", "permissions"} <= stored.keys()
        for value in stored.values():
            assert tokens.refresh_token not in value
        await ledger_holds(house)

    async def test_a_ticket_that_is_not_ready(self, waiting: Guest, name: str) -> None:
        await waiting.register(name)
        ticket = await waiting.log_in(name)

        refusal = await waiting.refused(ticket.finalize, "INVALID_TICKET")

        assert refusal.status == 400
        await waiting.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    async def test_another_client_id(self, guest: Guest, name: str) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        await guest.wait(ticket)

        await guest.refused(Pass(ticket.tid, "another").finalize, "INVALID_TICKET")

        assert (await guest.finalize(ticket)).user_id == name

    async def test_a_spent_ticket(self, guest: Guest, name: str) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        await guest.wait(ticket)
        await guest.finalize(ticket)

        refusal = await guest.refused(ticket.finalize, "TICKET_NOT_FOUND")

        assert refusal.status == 404
        await guest.refused(ticket.stream, "TICKET_NOT_FOUND")
