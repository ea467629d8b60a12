"""The demo: players like any others make accounts, wait for their turn, sign in, and stay.

Some of them are VIPs, some PREMIUM players. In the first act each of them comes when passwords can be hashed,
which is what takes the time. In the second one all come back at once with the tokens that they have, as on a
day that a game opens: the waiting room.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

from client import ClientError, Endpoint, Player
from client.errors import RequestFailed
from protocol.errors import USERNAME_TAKEN
from protocol.messages.waiting import QueueUpdate
from runtime.settings import Config
from scripts.commands.crowd import Act, Crowd, Guest, State, Tier
from scripts.commands.picture import line, picture, summary
from scripts.commands.screen import Screen

FIRST_ADDRESS = "127.0.1.1"
PLAYERS_PER_ADDRESS = 15
"""Below the default limits of 20 registrations an hour and 100 connections for one address."""

AT_THE_DOOR = 32
"""Players whose password is hashed at a time: hashing takes a quarter of a second of a core, and nobody wants
to wait for an answer longer than a node does."""

PATIENCE_S = 900.0
INTERMISSION_S = 1.5
FRAME_S = 0.25
LINE_S = 2.0


GROUPS = {Tier.VIP: "VIP_Users", Tier.PREMIUM: "Premium_Users"}

Join = Callable[[str, Sequence[str]], Awaitable[None]]
"""Makes users members of a group."""


class Demo:
    """A crowd that plays through `endpoints`. `password` is that of all its accounts."""

    def __init__(
        self, players: int, endpoints: Sequence[Endpoint], config: Config, password: str, join: Join
    ) -> None:
        login = config.login
        addresses = _addresses(endpoints[0][0], players)
        count = min(players, len(addresses) * PLAYERS_PER_ADDRESS)
        self.crowd = Crowd(count, login.admit_rate * login.pod_count / 60)
        self._password = password
        self._join = join
        trust = _trust(config.socketd.tls_certificate)
        self._players = {
            guest: Player(
                endpoints,
                name="lobbyd-demo",
                local_address=addresses[number // PLAYERS_PER_ADDRESS],
                patience_s=PATIENCE_S,
                ssl=trust,
            )
            for number, guest in enumerate(self.crowd.guests)
        }
        self._door = asyncio.Semaphore(AT_THE_DOOR)
        self.is_short = count < players

    async def run(self, screen: Screen) -> None:
        """Bring everybody in, twice, and show it; they stay until `leave`."""
        drawing = asyncio.create_task(self._draw(screen))
        try:
            await self._each(self._visit_first)
            self.crowd.end()
            await asyncio.sleep(INTERMISSION_S)
            self.crowd.begin(Act.RUSH)
            await self._each(self._come_back)
            self.crowd.end()
        finally:
            drawing.cancel()
            await asyncio.wait({drawing})
        self._draw_once(screen)
        screen.settle()
        screen.say(summary(self.crowd))

    def leave(self) -> None:
        """Close every player's connection."""
        for player in self._players.values():
            player.close()

    async def _each(self, step: Callable[[Guest], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for guest in self.crowd.guests:
                group.create_task(self._unless_lost(guest, step))

    async def _unless_lost(self, guest: Guest, step: Callable[[Guest], Awaitable[None]]) -> None:
        if guest.state is State.LOST:
            return
        try:
            await step(guest)
        except (ClientError, OSError) as error:
            self.crowd.is_lost(guest, str(error))

    async def _visit_first(self, guest: Guest) -> None:
        player = self._players[guest]
        async with self._door:
            self.crowd.move(guest, State.HASHING)
            await self._make_account(guest)
            await player.login(guest.name, self._password)
        await self._come_in(guest)

    async def _make_account(self, guest: Guest) -> None:
        email = f"{guest.name}@demo.invalid"
        try:
            await self._players[guest].register(guest.name, self._password, email, guest.nickname)
        except RequestFailed as refused:
            # On a second start they have their accounts already.
            if refused.code != USERNAME_TAKEN.code:
                raise
        if guest.tier in GROUPS:
            await self._join(GROUPS[guest.tier], [guest.name])

    async def _come_back(self, guest: Guest) -> None:
        player = self._players[guest]
        if player.tokens is not None:
            await player.login_with(player.tokens.refresh_token)
            await self._come_in(guest)

    async def _come_in(self, guest: Guest) -> None:
        player, ticket = self._players[guest], self._players[guest].ticket
        self.crowd.waits_for_turn(guest, 0 if ticket is None else ticket.position)

        def move_up(update: QueueUpdate) -> None:
            guest.position = update.position

        await player.wait_until_ready(move_up)
        self.crowd.is_admitted(guest)
        await player.finalize()
        self.crowd.is_in(guest)

    async def _draw(self, screen: Screen) -> None:
        while True:
            self._draw_once(screen)
            await asyncio.sleep(FRAME_S if screen.is_terminal else LINE_S)

    def _draw_once(self, screen: Screen) -> None:
        if screen.is_terminal:
            screen.show(picture(self.crowd))
        else:
            screen.say(line(self.crowd))


def _trust(certificate: str) -> ssl.SSLContext | None:
    """Trust in the nodes' own certificate and no other, whatever name it bears; None for plain TCP."""
    if not certificate:
        return None
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _addresses(host: str, players: int) -> list[str | None]:
    """Loopback addresses for the players to come from; [None] where there is but one."""
    try:
        with socket.socket() as probe:
            probe.bind((FIRST_ADDRESS, 0))
    except OSError:
        return [None]
    if ":" in host:
        return [None]
    needed = -(-players // PLAYERS_PER_ADDRESS)
    first = ipaddress.IPv4Address(FIRST_ADDRESS)
    return [str(first + number) for number in range(needed)]
