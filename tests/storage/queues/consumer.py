"""A consumer that works until it is killed: `python -m tests.storage.queues.consumer URL NAME LEASE_S`.

What it handles it records in Redis under HANDLED, once however often it does so. The message POISON kills
it, as a fault in native code would. An entry handed out more often than ATTEMPTS allows is given up on.
"""

import asyncio
import os
import signal
import sys

from storage.queues import Entry
from tests.storage.queues.making import Peer, open_peer, queue

QUEUE = queue("jobs")
HANDLED = "handled"
DEATHS = "deaths"
POISON = b"poison"
ATTEMPTS = 3
BATCH = 20


class Consumer:
    """Claims before it reads, handles one entry after the other, and renews what it still holds."""

    def __init__(self, peer: Peer, name: str, lease_s: float) -> None:
        self._peer = peer
        self._name = name
        self._lease_s = lease_s
        self._subscription = peer.subscribe([QUEUE], name, block_s=0.1)
        self._held: list[Entry] = []

    async def run(self) -> None:
        """Work for ever."""
        renewing = asyncio.create_task(self._renew())
        while not renewing.done():
            claimed = await self._subscription.claim(self._lease_s)
            self._held = [claimed] if claimed else await self._subscription.read(BATCH)
            while self._held:
                await self._handle(self._held[0])
                del self._held[0]
            await self._peer.outbox.flushed()
        renewing.result()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            await self._subscription.renew({"jobs": [entry.id for entry in self._held]})

    async def _handle(self, entry: Entry) -> None:
        if entry.deliveries > ATTEMPTS:
            await self._peer.server.dead_letter(entry, "CRASHED")
            return
        if entry.message == POISON:
            await self._die(entry)
        await self._peer.redis.sadd(HANDLED, entry.message)
        self._peer.outbox.acknowledge(entry)

    async def _die(self, entry: Entry) -> None:
        """Leave word of how often the entry was handed out, and of how many were held beside it."""
        await self._peer.outbox.flushed()
        held = await self._peer.held(entry.queue_id, self._name)
        await self._peer.redis.rpush(DEATHS, f"{entry.deliveries} {len(held) - 1}")
        os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, name: str, lease_s: float) -> None:
    """Consume from the Redis at `url`."""
    async with open_peer(url) as peer:
        await Consumer(peer, name, lease_s).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
