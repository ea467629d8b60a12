"""What is signed or random for one purpose is no use for another, nor for another player.

Forged tokens are in `test_tokens.py`.
"""

import itertools
from typing import Any, cast

import pytest

from protocol.messages.auth import (
    Finalize,
    Login,
    Logout,
    Refresh,
    Resume,
)
from protocol.messages.waiting import Cancel, Stream
from tests.system.guest import Guest, registration

pytestmark = pytest.mark.servers


class TestConfusion:
    async def test_nothing_is_taken_for_something_else(
        self, guest: Guest, attacker: Guest, name: str
    ) -> None:
        """Each thing that a player gets is good for its own request alone."""
        tokens = await guest.sign_up(name)
        ticket = await guest.log_in(name)
        things = {
            "access": tokens.access_token,
            "refresh": tokens.refresh_token,
            "tid": ticket.tid,
            "client": ticket.client_id,
            "name": name,
            "seal": tokens.refresh_token.rpartition("~")[2],
            "payload": tokens.access_token.split(".")[1],
        }
        for thing, value in things.items():
            if thing != "access":
                await attacker.refused(Resume(access_token=value), "INVALID_TOKEN")
            if thing != "refresh":
                await attacker.refused(Refresh(refresh_token=value), "INVALID_TOKEN")
                await attacker.refused(Login(refresh_token=value), "INVALID_TOKEN")
                await attacker.refused(Logout(refresh_token=value), "INVALID_TOKEN")
        for tid, client_id in itertools.permutations(things.values(), 2):
            if (tid, client_id) == (ticket.tid, ticket.client_id):
                continue
            for message in (
                Stream(tid=tid, client_id=client_id),
                Finalize(tid=tid, client_id=client_id),
                Cancel(tid=tid, client_id=client_id),
            ):
                refused = await attacker.refusal(message)
                expected = {"TICKET_NOT_FOUND", "INVALID_REQUEST"}  # too long for an id
                if tid == ticket.tid:
                    expected = {"SESSION_TAKEN_OVER", "INVALID_TICKET", "INVALID_REQUEST"}
                assert refused.code in expected, (message, refused)
        assert (await attacker.resume(tokens.access_token)).user_id == name
        assert (await attacker.finalize(ticket)).user_id == name

    async def test_one_players_tokens_are_no_use_for_another(
        self, guest: Guest, attacker: Guest, name: str
    ) -> None:
        """Nor are parts of both, put together in any way."""
        victims = await guest.sign_up(name)
        own = await attacker.sign_up(f"{name}-2")
        parts = [pair.refresh_token.split("~") for pair in (victims, own)]
        for choice in itertools.product((0, 1), repeat=len(parts[0])):
            if len(set(choice)) == 1 or (choice[0] != choice[-1] and len({*choice[1:-1]}) == 0):
                continue
            mixed = "~".join(parts[which][index] for index, which in enumerate(choice))
            if mixed in (victims.refresh_token, own.refresh_token):
                continue  # both begin with the same prefix
            await attacker.refused(Refresh(refresh_token=mixed), "INVALID_TOKEN")
        heads = [pair.access_token.split(".") for pair in (victims, own)]
        for choice in itertools.product((0, 1), repeat=3):
            mixed = ".".join(heads[which][index] for index, which in enumerate(choice))
            if mixed not in (victims.access_token, own.access_token):
                await attacker.refused(Resume(access_token=mixed), "INVALID_TOKEN")
        assert (await guest.ask(Refresh(refresh_token=victims.refresh_token))) is not None

    async def test_a_key_that_was_overheard_is_worth_nothing_alone(
        self, guest: Guest, attacker: Guest, name: str
    ) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name, key="overheard")
        await guest.wait(ticket)
        tokens = await guest.finalize(ticket, key="overheard")
        await guest.ask(Refresh(refresh_token=tokens.refresh_token), key="overheard")

        own = await attacker.sign_up(f"{name}-2")
        for message in (
            Login(username=name, password="a guess"),
            Finalize(tid=ticket.tid, client_id="client_of-mine"),
            Refresh(refresh_token=f"{tokens.refresh_token}x"),
            registration(name),
        ):
            await attacker.refusal(message, "overheard")
        pair = cast(Any, await attacker.ask(Refresh(refresh_token=own.refresh_token), "overheard"))
        assert (await attacker.resume(pair.access_token)).user_id == f"{name}-2"
