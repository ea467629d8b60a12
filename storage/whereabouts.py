"""Where users are: the connection at which each is signed in now, and the nodes that there are."""

from collections.abc import Mapping, Sequence, Set

from protocol.envelope import Address
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.gathering import Gathering
from storage.tickets import LIBRARY
from storage.wire import Argument, Command, Wire

MOST_TOGETHER = 500
"""Users that one call looks for."""


class Whereabouts:
    """The connections of signed-in users. Raises StoreAway."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._asked = Gathering(self.of)

    async def one(self, user_id: str) -> Address | None:
        """Where a user is. All that is asked for in a turn of the loop is looked up together."""
        return await self._asked.get(user_id)

    async def of(self, user_ids: Set[str]) -> Mapping[str, Address]:
        """Where users are, those that are signed in at a node which lives, as far as is known."""
        wanted = sorted(user_ids)
        alive = await self.nodes()
        found = {}
        for start in range(0, len(wanted), MOST_TOGETHER):
            some = wanted[start : start + MOST_TOGETHER]
            answer = await LIBRARY.call(self._wire, "session_where", list(map(keys.session, some)))
            for number, server_id, connection_id in zip(answer[::3], answer[1::3], answer[2::3], strict=True):
                if server_id.decode() in alive:
                    found[some[number - 1]] = Address(server_id.decode(), int(connection_id))
        return found

    async def traces(self, user_ids: Sequence[str]) -> list[str]:
        """The trace of each user's stay, "" where none is known."""
        reads: list[Command] = [("HGET", keys.session(user_id), "trace") for user_id in user_ids]
        with redis_away_is_store_away():
            answers = await self._wire.execute_commands(reads)
        return [answer.decode() if isinstance(answer, bytes) else "" for answer in answers]

    async def nodes(self) -> Set[str]:
        """The server ids of the nodes that take deliveries now."""
        with redis_away_is_store_away():
            return _nodes(await self._wire.execute_command("SMEMBERS", keys.QUEUE_IDS))

    async def left(self, gone: Sequence[tuple[str, Address]]) -> None:
        """These users' connections are closed; a user who is at another by now stays there."""
        args: list[Argument] = [keys.SESSION_PREFIX]
        for user_id, address in gone:
            args += [user_id, address.server_id, address.connection_id]
        await LIBRARY.call(self._wire, "session_leave", [], args)


def _nodes(queue_ids: Sequence[bytes]) -> Set[str]:
    return {
        server_id
        for queue_id in queue_ids
        if (server_id := keys.node_of_queue(queue_id.decode())) is not None
    }
