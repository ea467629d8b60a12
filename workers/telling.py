"""Telling users what happened, at whichever node each is signed in."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence, Set
from typing import Any

import structlog

from protocol.connection import event_frame
from protocol.envelope import Address, Delivery
from protocol.messages import Message
from storage.errors import StoreAway
from storage.queues import Outbox
from storage.whereabouts import Whereabouts

log = structlog.get_logger(__name__)


class Telling:
    """Sends events. They are hints: who is not there, or cannot be reached, asks when they are back."""

    def __init__(self, whereabouts: Whereabouts, outbox: Outbox) -> None:
        self._whereabouts = whereabouts
        self._outbox = outbox
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, user_id: str, event: Message) -> None:
        """Send an event to one user. Those of one turn of the loop share a look-up."""
        self._begin(self._tell(user_id, event))

    async def present(self, user_ids: Set[str]) -> Mapping[str, Address]:
        """Those of the users who are signed in somewhere, and where; nobody when that cannot be found out."""
        try:
            return await self._whereabouts.of(user_ids) if user_ids else {}
        except StoreAway as error:
            log.warning("cannot tell", cause=str(error))
            return {}

    def tell_at(self, address: Address, user_id: str, *events: Message) -> None:
        """Send events to a user who is present, in one delivery."""
        frames = b"".join(map(event_frame, events))
        self._outbox.deliver(address.server_id, Delivery(address.connection_id, frames, user_id=user_id))

    async def tell_all(self, events: Sequence[tuple[str, Message]]) -> None:
        """Send many users an event each, with one look-up; they are on their way when this returns."""
        present = await self.present({user_id for user_id, _ in events})
        for user_id, event in events:
            if user_id in present:
                self.tell_at(present[user_id], user_id, event)

    def tell_each(self, events: Sequence[tuple[str, Message]]) -> None:
        """Send many users an event each, with one look-up, in the order of the calls."""
        if events:
            self._begin(self.tell_all(events))

    def broadcast(self, topic: str, event: Message) -> None:
        """Send an event to every connection that has joined a topic: one message a node."""
        self._begin(self._broadcast(topic, event_frame(event)))

    def _begin(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, user_id: str, event: Message) -> None:
        try:
            address = await self._whereabouts.one(user_id)
        except StoreAway as error:
            log.warning("cannot tell", cause=str(error))
            return
        if address is not None:
            self.tell_at(address, user_id, event)

    async def _broadcast(self, topic: str, frame: bytes) -> None:
        try:
            nodes = await self._whereabouts.nodes()
        except StoreAway as error:
            log.warning("cannot tell", cause=str(error))
            return
        for server_id in nodes:
            self._outbox.deliver(server_id, Delivery(0, frame, topic=topic))
