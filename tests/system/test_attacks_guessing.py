"""What an outsider learns or gets by guessing: of names, of tickets, of whoever plays.

Limits of guessing are in `test_limits.py`.
"""

import asyncio
import itertools
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.client import Monitor

from protocol.messages.auth import (
    Finalize,
    Login,
)
from protocol.messages.connection import KickedOut
from protocol.messages.waiting import Cancel, Stream
from storage import keys
from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.guest import Guest

pytestmark = pytest.mark.servers

GUESSES = 200


COUNTING = """
import runpy, sys
import bcrypt
from storage.users import Users

def said(what):
    print('{"work": "%s"}' % what, file=sys.stderr, flush=True)

check, find = bcrypt.checkpw, Users._find

def checkpw(password, password_hash):
    said("hash " + password_hash[:7].decode())
    return check(password, password_hash)

async def _find(self, which):
    said("sql")
    return await find(self, which)

bcrypt.checkpw, Users._find = checkpw, _find
runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def counted(servers_folder: Path) -> Iterator[Cluster]:
    """A house whose login worker says what work it does."""
    for cluster in run_house(servers_folder / uuid.uuid4().hex, {}):
        program = cluster.folder / "counting.py"
        program.write_text(COUNTING)
        cluster.start(logins=0)
        cluster.start_worker("login", program=str(program))
        yield cluster


class TestEnumeration:
    """Whether there is an account can be told by nothing that a login does."""

    async def work_of(self, cluster: Cluster, guest: Guest, name: str) -> tuple[str, list[str]]:
        """How a wrong password is answered, and the work that was done for it."""
        worker = cluster["login-1"]
        before = len(worker.log)
        refused = await guest.refusal(Login(username=name, password="a wrong one"))
        await guest.is_served()
        found = re.findall(r'^\{"work": "(.*)"\}$', worker.log[before:], re.MULTILINE)
        return str(refused), sorted(found)

    async def test_a_refusal_is_as_much_work_whoever_it_is(self, counted: Cluster, name: str) -> None:
        guest = await Guest.at(counted["SOCK001"].endpoint)
        await guest.sign_up(name)
        expected = ("INVALID_CREDENTIALS: The username or the password is wrong.", ["hash $2b$04$", "sql"])
        for _ in range(3):
            assert await self.work_of(counted, guest, name) == expected
            assert await self.work_of(counted, guest, f"{name}-2") == expected
        counted.redis.delete(keys.user(name))  # nobody has asked for an hour
        assert await self.work_of(counted, guest, name) == expected
        guest.leave()

    async def test_nobodys_name_is_refused_alike_by_every_request(self, attacker: Guest, name: str) -> None:
        """But `auth.register`, which has to say that a name is taken, so many times an hour."""
        await attacker.register(name)
        outcomes = [
            [
                str(await attacker.refusal(Login(username=each, password=password)))
                for password in ("a wrong one", "", "x" * 72)
            ]
            for each in (name, f"{name}-2")
        ]
        assert outcomes[0] == outcomes[1]


def commands_of(monitor: Monitor) -> Iterator[str]:
    """The commands that a Redis is given."""
    while True:
        yield str(monitor.next_command()["command"])


class TestTakeOverByGuessing:
    async def test_who_knows_a_ticket_and_guesses_its_client(
        self, guest: Guest, attacker: Guest, name: str
    ) -> None:
        await guest.register(name)
        ticket = await guest.log_in(name)
        await guest.wait(ticket)
        guesses = [ticket.client_id[:-1], f"{ticket.client_id}x", "", "client_", ticket.client_id.upper()]
        guesses += [f"client_{uuid.uuid4().hex[:22]}" for _ in range(GUESSES)]
        for client_id in filter(None, guesses):
            refused = await asyncio.gather(
                attacker.refusal(Stream(tid=ticket.tid, client_id=client_id)),
                attacker.refusal(Finalize(tid=ticket.tid, client_id=client_id)),
                attacker.refusal(Cancel(tid=ticket.tid, client_id=client_id)),
            )
            codes = [each.code for each in refused]
            assert codes == ["SESSION_TAKEN_OVER", "INVALID_TICKET", "SESSION_TAKEN_OVER"]
        assert guest.all(KickedOut) == []
        assert (await guest.finalize(ticket)).user_id == name

    async def test_nobody_looks_for_a_ticket_that_is_made_up(self, house: Cluster, attacker: Guest) -> None:
        """An id that lobbyd did not sign is refused unseen: how long that takes tells nothing."""
        made_up = f"tid_{uuid.uuid4().hex[:22]}.{uuid.uuid4().hex[:22]}"
        with house.redis.monitor() as monitor:
            await attacker.refused(Stream(tid=made_up, client_id="client"), "TICKET_NOT_FOUND")
            await attacker.refused(Cancel(tid=made_up, client_id="client"), "TICKET_NOT_FOUND")
            await attacker.refused(Finalize(tid=made_up, client_id="client"), "TICKET_NOT_FOUND")
            house.redis.echo("the end")
            commands = list(
                itertools.takewhile(lambda command: "the end" not in command, commands_of(monitor))
            )
        assert commands
        assert not [command for command in commands if keys.ticket(made_up) in command]
