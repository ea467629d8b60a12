"""A queue as plain Python: what the real one is compared with, step by step."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Held:
    """An entry that was read: by whom last, how often handed out, and whether its lease has run out."""

    consumer: str
    deliveries: int = 1
    lapsed: bool = False


@dataclass
class QueueModel:
    """One queue. Messages sort in the order in which they were handed in."""

    max_size: int
    exists: bool = False
    unread: list[bytes] = field(default_factory=list)
    pending: dict[bytes, Held] = field(default_factory=dict)
    letters: list[tuple[bytes, str, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def messages(self) -> list[bytes]:
        """What the queue holds, in its order."""
        return sorted([*self.pending, *self.unread])

    def create(self, max_size: int) -> None:
        """Make the queue, or give it a new bound."""
        self.exists, self.max_size = True, max_size

    def lose(self) -> int:
        """Forget the queue but not its dead letters. Answers how many entries went with it."""
        length = len(self.messages)
        self.exists = False
        self.unread, self.pending, self.counts = [], {}, Counter()
        return length

    def publish(self, messages: Sequence[bytes]) -> int:
        """Take as many as there is room for. Answers how many."""
        taken = max(0, min(len(messages), self.max_size - len(self.messages)))
        self.unread += messages[:taken]
        self._count("published", taken)
        self._count("refused", len(messages) - taken)
        return taken

    def read(self, count: int, consumer: str) -> list[bytes]:
        """Hand out the first unread messages."""
        taken, self.unread = self.unread[:count], self.unread[count:]
        self.pending |= {message: Held(consumer) for message in taken}
        return taken

    def acknowledge(self, message: bytes) -> None:
        """Settle a message, whoever holds it."""
        if self.pending.pop(message, None) is not None:
            self._count("acknowledged", 1)

    def claim(self, consumer: str, anything: bool) -> bytes | None:
        """Hand over the oldest message whose lease has run out, or the oldest of all."""
        for message, held in sorted(self.pending.items(), key=lambda item: item[0]):
            if anything or held.lapsed:
                self.pending[message] = Held(consumer, held.deliveries + 1)
                self._count("claimed", 1)
                return message
        return None

    def renew(self, message: bytes, consumer: str) -> None:
        """Keep a message from being claimed, if it is this consumer's."""
        held = self.pending.get(message)
        if held is not None and held.consumer == consumer:
            held.lapsed = False

    def dead_letter(self, message: bytes, cause: str, deliveries: int) -> bool:
        """Give up on a message. Answers whether it was there."""
        if self.pending.pop(message, None) is None:
            return False
        self.letters.append((message, cause, deliveries))
        self._count("deadLettered", 1)
        return True

    def expire(self, keep: bool) -> int:
        """Remove all that is unread. Answers how many."""
        expired, self.unread = self.unread, []
        if keep:
            self.letters += [(message, "EXPIRED", 0) for message in expired]
        self._count("expired", len(expired))
        return len(expired)

    def _count(self, name: str, count: int) -> None:
        if count:
            self.counts[name] += count
