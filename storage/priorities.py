"""The noun "priority": how much more than its ordinary share a queue gets of its consumers."""

from collections.abc import Mapping, Sequence

from storage import keys
from storage.errors import redis_away_is_store_away
from storage.servers import now_ms
from storage.wire import Command, Wire

KEPT_S = 300
"""A priority that nobody renews is forgotten: without operations every queue has its ordinary share."""


class Priorities:
    """The priorities of queues and of kinds of workers, by name. Raises StoreAway."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def weights(self, names: Sequence[str]) -> dict[str, float]:
        """The weight of each, 1 where nothing is said."""
        reads: list[Command] = [("HGET", keys.queue_priority(name), "new_priority") for name in names]
        with redis_away_is_store_away():
            answers = await self._wire.execute_commands(reads)
        weights = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            weights[name] = 1.0 if answer is None else float(answer)
        return weights

    async def set(self, said: Mapping[str, tuple[float, str]]) -> None:
        """Give each name its weight, with the reason."""
        changed_at = now_ms()
        commands: list[Command] = []
        for name, (weight, reason) in said.items():
            key = keys.queue_priority(name)
            commands += [
                ("HSET", key, "new_priority", weight, "reason", reason, "changed_at", changed_at),
                ("EXPIRE", key, KEPT_S),
            ]
        with redis_away_is_store_away():
            for answer in await self._wire.execute_commands(commands):
                if isinstance(answer, Exception):
                    raise answer
