"""Tells systemd how the process is doing (sd_notify(3)); does nothing where systemd does not ask.

A unit with `Type=notify` sets `NOTIFY_SOCKET`, one with `WatchdogSec=` also `WATCHDOG_USEC`.
"""

import os
import socket
from collections.abc import Mapping

import structlog

log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


def ready() -> None:
    """Start-up is over."""
    _send("READY=1")


def stopping() -> None:
    """The process has begun to end."""
    _send("STOPPING=1")


def watchdog() -> None:
    """The process is alive; due more often than the unit's WatchdogSec."""
    _send("WATCHDOG=1")


def status(text: str) -> None:
    """One line for people, shown by `systemctl status`."""
    _send("STATUS=" + " ".join(text.split()))


def watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """Seconds between two `watchdog` calls: half of what systemd allows, as sd_watchdog_enabled(3) advises.

    None when systemd watches nobody, or another process.
    """
    allowed_us = environ.get("WATCHDOG_USEC", "")
    if not allowed_us.isdecimal() or int(allowed_us) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(allowed_us) / 2_000_000


def _send(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract sockets begin with a zero byte
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        ) as sock:
            sock.connect(address)
            sock.send(state.encode())
    except OSError as error:
        log.warning("systemd was not told", state=state, cause=str(error))
