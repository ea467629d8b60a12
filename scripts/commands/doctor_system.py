"""`lobbyctl doctor`: the processes, their limits, their ports and certificates, and the queues."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import msgspec
import psutil
from cryptography import x509
from redis.asyncio import Redis

from runtime.settings import Config
from scripts.commands.doctor_found import Found, State, ok, warning, wrong
from scripts.commands.plan import socket_address
from scripts.commands.status import ALIVE
from storage.admission import AdmissionSettings
from storage.dismissals import Dismissals
from storage.monitoring import Monitoring
from storage.queues import QueueServer
from storage.servers import Holder, Servers
from workers.__main__ import KINDS
from workers.operations.thresholds import Finding, findings

ANSWER_WITHIN_S = 2.0
CERTIFICATE_WRONG_S = 7 * 86_400
CERTIFICATE_SOON_S = 30 * 86_400
FILES_SHARE = 0.8
LEAST_FILES = 4_096

Known = Mapping[str, Mapping[str, str]]

WHAT_TO_DO = {
    "server": "Look at its log and its machine, and start it again; one that is not to come back is "
    "forgotten with `redis-cli DEL SERVER_ID:{id}:status`.",
    "latency": "More workers of that kind help; `lobbyctl scaling` says how many.",
    "queue": "See who reads it with `lobbyctl queue ls`; start more workers of that kind.",
    "dead": "See why with `lobbyctl dead-letters list QUEUE`; then `requeue` or `drop` them.",
    "estimates": "See who is let in, and how fast, with `lobbyctl admission show`; it settles as they are.",
    "errors": "The logs of the workers say which requests fail, and why.",
    "redis": "See what has grown with `redis-cli --bigkeys`.",
}
"""By what a finding of the operations worker's rules is about."""


async def system(redis: Redis, config: Config) -> list[Found]:
    """How everything that runs fares. Raises StoreAway."""
    known = await Servers(redis).all()
    holders = {name: await Dismissals(redis).holder(name) for name in known}
    sample = await Monitoring(redis).sample()
    found = await _unread(redis)
    named = {each.check for each in found}
    rules = findings(sample, config.monitoring, config.status.patience_s)
    found += [_from_rule(each) for each in rules if each.subject not in named]
    found += _kinds(known)
    found += _versions(known)
    found += _files(holders, config)
    for name, fields in known.items():
        if fields.get("serverType") == "SOCKET" and fields.get("statusCode") == "READY":
            found.append(await _port(name, fields, config))
    settings = await AdmissionSettings(redis).show()
    if settings.paused:
        found.append(
            warning(
                "admission",
                f"{settings.set_by} has paused it",
                "`lobbyctl admission resume`, when it is time.",
            )
        )
    return found


def _from_rule(finding: Finding) -> Found:
    kind = finding.subject.partition(":")[0]
    return Found(finding.subject, State.WRONG, finding.message, WHAT_TO_DO[kind])


def _kinds(known: Known) -> Iterator[Found]:
    """Whether there is one of each kind that works."""
    for kind in (*sorted(KINDS), "socket"):
        ready = [
            name
            for name, fields in known.items()
            if fields.get("serverType") == kind.upper() and fields.get("statusCode") == "READY"
        ]
        start = "python -m socketd --server-id SOCK001" if kind == "socket" else f"python -m workers {kind}"
        if ready:
            yield ok(f"processes {kind}", f"{', '.join(sorted(ready))} READY")
        else:
            yield wrong(f"processes {kind}", "none is READY", f"Start one: `{start}`, or its systemd unit.")


def _versions(known: Known) -> Iterator[Found]:
    versions = {fields.get("version", "?") for fields in known.values() if fields.get("statusCode") in ALIVE}
    if len(versions) > 1:
        text = f"{', '.join(sorted(versions))} run at the same time"
        yield warning("releases", text, "Finish the upgrade, one process after the other.")


def _files(holders: Mapping[str, Holder | None], config: Config) -> Iterator[Found]:
    """How many files the processes of this machine may open: a connection is one."""
    if sys.platform != "linux":
        return
    limits = []
    for name, holder in holders.items():
        if holder is None or holder.host != socket.gethostname():
            continue
        try:
            process = psutil.Process(holder.pid)
            limit, _ = process.rlimit(psutil.RLIMIT_NOFILE)
            used = process.num_fds()
        except psutil.Error:
            continue  # another user's, or in another container
        limits.append(limit)
        raise_it = "Raise LimitNOFILE of its unit, or `ulimit -n` where it is started."
        if used > FILES_SHARE * limit:
            yield wrong(f"files {name}", f"{used:,} of {limit:,} files are open", raise_it)
        elif limit < LEAST_FILES:
            yield warning(f"files {name}", f"it may open {limit:,} files", raise_it)
    if limits:
        yield ok("files", f"each of {len(limits)} processes here may open {min(limits):,} or more")


async def _port(name: str, fields: Mapping[str, str], config: Config) -> Found:
    """Whether a node can be reached from here, and how long its certificate lasts."""
    host, port = fields.get("host", ""), int(fields.get("port", 0))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    where, check = socket_address(host, port), f"port {name}"
    is_tls = bool(config.socketd.tls_certificate)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=_unverified() if is_tls else None)
    except (OSError, TimeoutError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
        return wrong(
            check,
            f"{where} cannot be reached: {cause}",
            "See `ss -ltn` there, and the firewall.",
        )
    try:
        shown = writer.get_extra_info("ssl_object")
        return ok(check, where) if shown is None else _certificate(check, where, shown.getpeercert(True))
    finally:
        writer.transport.abort()


def _unverified() -> ssl.SSLContext:
    """For looking at a certificate, whoever vouches for it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _certificate(check: str, where: str, shown: bytes) -> Found:
    until = x509.load_der_x509_certificate(shown).not_valid_after_utc
    left_s = (until - datetime.now(UTC)).total_seconds()
    renew = "Put a new one in its place and reload the node (SIGHUP): no connection is lost."
    if left_s <= 0:
        return wrong(check, f"{where}, its certificate has expired at {until:%Y-%m-%d %H:%M} UTC", renew)
    text = f"{where}, its certificate is good until {until:%Y-%m-%d}"
    if left_s > CERTIFICATE_SOON_S:
        return ok(check, text)
    return (wrong if left_s < CERTIFICATE_WRONG_S else warning)(check, text, renew)


async def _unread(redis: Redis) -> list[Found]:
    """Queues in which something waits that nobody reads."""
    server = QueueServer(redis)
    found = [
        wrong(f"queue:{each.queue_id}", f"{each.length:,} entries and no reader", WHAT_TO_DO["queue"])
        for each in await server.statistics(await server.ids())
        if each.length and not each.consumers and each.oldest_age_sec > ANSWER_WITHIN_S
    ]
    return found or [ok("queues", "whatever waits is read")]


def as_json(found: list[Found]) -> bytes:
    """One object, `ok` where nothing is wrong."""
    return msgspec.json.encode({"ok": is_well(found), "found": found})


def is_well(found: list[Found]) -> bool:
    """Whether nothing is wrong."""
    return all(each.state is not State.WRONG for each in found)
