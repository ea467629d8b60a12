"""How much one connection may ask for."""


class TokenBucket:
    """Lets through `rate_per_s` a second on average, and at most one second's worth at once.

    Takes the time from its caller, in seconds of any steady clock.
    """

    __slots__ = ("_at_s", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._tokens = rate_per_s
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Take one token. Answers 0 when there was one, else the seconds until there will be."""
        rate = self._rate_per_s
        tokens = min(rate, self._tokens + (now_s - self._at_s) * rate)
        self._at_s = now_s
        if tokens < 1:
            self._tokens = tokens
            return (1 - tokens) / rate
        self._tokens = tokens - 1
        return 0.0
