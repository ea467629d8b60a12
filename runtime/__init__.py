"""How any process lives: settings, secrets, log, measurements, start, ready, heartbeat, drain, stop.

This room knows no game, no Redis key and no wire format; every daemon stands on it.
"""

__version__ = "0.1.0"
