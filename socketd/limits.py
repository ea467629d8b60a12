"""How much one connection, one user and one address may ask for."""

from collections import deque
from ipaddress import IPv6Address, ip_address
from weakref import WeakValueDictionary

COSTLY_BYTES = 1024
"""Before sign-in a request costs one turn, and one more for each time that it is as long: a node works longer
on a long frame, and strangers have no reason to send many."""

REMEMBERED_S = 1.0
"""A bucket that nobody takes from is full after a second, and worth no more than a new one."""


class TokenBucket:
    """Lets through `rate_per_s` a second on average, and at most one second's worth at once.

    Takes the time from its caller, in seconds of any steady clock.
    """

    __slots__ = ("__weakref__", "_at_s", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._tokens = rate_per_s
        self._at_s = now_s

    def take(self, now_s: float, cost: int = 1) -> float:
        """Take `cost` tokens. Answers 0 when there was one at least, else the seconds until there will be.

        What was taken and not there is owed.
        """
        rate = self._rate_per_s
        tokens = min(rate, self._tokens + (now_s - self._at_s) * rate)
        self._at_s = now_s
        if tokens < 1:
            self._tokens = tokens
            return (1 - tokens) / rate
        self._tokens = tokens - cost
        return 0.0


class UserBuckets:
    """The buckets of a node's users: one each, on whatever connections, and across a reconnect."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._buckets: WeakValueDictionary[str, TokenBucket] = WeakValueDictionary()
        self._left: deque[tuple[float, TokenBucket]] = deque()

    def take_up(self, user_id: str, now_s: float) -> TokenBucket:
        """The user's bucket. Whoever takes it up holds it, and hands it back."""
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = TokenBucket(self._rate_per_s, now_s)
        return bucket

    def hand_back(self, bucket: TokenBucket, now_s: float) -> None:
        """Keep a bucket that a connection has no use for any more until it would be full again."""
        while self._left and self._left[0][0] < now_s - REMEMBERED_S:
            self._left.popleft()
        self._left.append((now_s, bucket))


def network_of(address: str, ipv6_prefix: int) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 one's first `ipv6_prefix` bits.

    A customer of an internet provider has a whole IPv6 network to choose addresses from, a /64 at least
    (RFC 6177). What is no address is answered as it is.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    rest = 128 - ipv6_prefix
    return f"{IPv6Address(int(parsed) >> rest << rest)}/{ipv6_prefix}"
