"""The noun "admission": how many are let in, who decided that, and where one user stands.

Configuration says how many; what an operator says holds over it until the operator says something else,
or Redis has lost it. Every change is one Function in `functions/admission.lua`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage import keys
from storage.audit import as_field
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.tickets import LIBRARY as TICKETS
from storage.wire import Argument, Executor

LIBRARY = Library("audit", "admission")

OPENING_KEPT_S = 60.0
"""A door stays slowed or closed for so long after operations said so last."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set. Rates are players a minute; those without "pod" in the name are for all pods together.

    `rate` holds but for a pause, `total_rate` is in force. `set_by` is the operator who changed something
    last and `set_at` the ISO time of it, both None where only configuration has spoken, as is
    `operator_rate` while no operator has set a rate. `opens_at` is the ISO time of an opening to come.
    """

    rate: float
    total_rate: float
    configured_rate: float
    operator_rate: float | None
    pod_count: int
    paused: bool
    set_by: str | None
    set_at: str | None
    opens_at: str | None = None

    @property
    def pod_rate(self) -> float | None:
        """Players a minute and pod, None before any worker has said how many pods there are."""
        return self.rate / self.pod_count if self.pod_count else None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an operator's word, with the rates before and after it in players a minute.

    Those are the rates in force, but when a rate is set: then those that hold but for a pause.
    """

    is_changed: bool
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the holder of a ticket stands. `position` counts from 1 and is 0 for who does not stand in line.

    `node` streams the ticket's events, or is None; `unseen_s` ago its player was last known to be there,
    and a place whose player stays away is kept for `kept_s` from now. `deadline_s` is what is left to
    finalize a READY ticket, else None. `wait_s` is what the player is told of the wait, None while nobody can
    say; before an opening, at the ISO time `opens_at`, the position is the last of the tier.
    """

    status: TicketStatus
    tier: str
    position: int
    total_waiting: int
    wait_s: float | None
    opens_at: str | None
    since_issue_s: float
    node: str | None
    unseen_s: float
    kept_s: float
    deadline_s: float | None

    @property
    def is_passed_over(self) -> bool:
        """Whether the turn came while the player was away: it comes again as soon as the player does."""
        return self.status is TicketStatus.PENDING and self.position == 0


class AdmissionSettings:
    """How many are let in. Any number of processes may read and change it. Raises StoreAway."""

    def __init__(self, redis: Executor) -> None:
        self._redis = redis

    async def configure(
        self, admit_rate: int, pod_count: int, max_wait_factor: float = 2.0, opens_at: int = 0
    ) -> None:
        """Write down what configuration says: players a minute and pod, and pods. Overrules no operator.

        `opens_at` is when the first are let in, in ms since the epoch, or 0.
        """
        values = (admit_rate, pod_count, max_wait_factor, opens_at)
        await self._call("admission_configure", [keys.PORTAL_CONFIG], *values)

    async def set_rate(self, total_rate: int | None, operator: str) -> Change:
        """Have so many let in a minute by all pods together, None for what is configured; a pause goes on."""
        return await self._change("rate", operator, "" if total_rate is None else total_rate)

    async def pause(self, operator: str) -> Change:
        """Let nobody in until `resume`."""
        return await self._change("pause", operator)

    async def resume(self, operator: str) -> Change:
        """Let players in again, as many as before the pause or as was set since."""
        return await self._change("resume", operator)

    async def open(self, share: float, reason: str) -> float:
        """Let in this share of the rate, 1 for all of it. Answers the rate in force."""
        answer = await self._call("admission_open", [keys.PORTAL_CONFIG], share, reason)
        return float(answer)

    async def current(self) -> float:
        """The rate in force. A door that nobody keeps slowed or closed any more opens."""
        answer = await self._call("admission_current", [keys.PORTAL_CONFIG], int(OPENING_KEPT_S * 1000))
        return float(answer or 0)

    async def opening(self) -> tuple[float, str]:
        """The share of the rate that is let in now, and why that is less than 1, if it is."""
        share, reason = await self._execute("HMGET", keys.PORTAL_CONFIG, "opening", "whyOpening")
        return (1.0, "") if share is None else (float(share), (reason or b"").decode())

    async def show(self) -> Settings:
        """What is set now."""
        names = ("totalRate", "admitRate", "podCount", "operatorRate", "paused", "setBy", "setAt", "opensAt")
        values = await self._execute("HMGET", keys.PORTAL_CONFIG, *names)
        total, admit, pods, operator, paused, set_by, set_at, opens_at = [
            value.decode() if value is not None else None for value in values
        ]
        seconds, _ = await self._execute("TIME")
        is_closed = opens_at is not None and int(opens_at) > int(seconds) * 1000
        configured = float(admit or 0) * int(pods or 0)
        operator_rate = None if operator is None else float(operator)
        return Settings(
            rate=configured if operator_rate is None else operator_rate,
            total_rate=float(total or 0),
            configured_rate=configured,
            operator_rate=operator_rate,
            pod_count=int(pods or 0),
            paused=paused == "1",
            set_by=set_by,
            set_at=set_at,
            opens_at=_as_iso(int(opens_at or 0) / 1000) if is_closed else None,
        )

    async def standing(self, user_id: str) -> Standing | None:
        """Where a user stands, None without a ticket that can be used."""
        names = [
            keys.user_ticket(user_id), keys.PORTAL_WAITING, keys.PORTAL_READY, keys.PORTAL_STATS,
            keys.PORTAL_BUCKET, keys.PORTAL_CONFIG,
        ]  # fmt: skip
        answer = await TICKETS.call(self._redis, "ticket_stand", names, [keys.TICKET_PREFIX])
        if not answer:
            return None
        position, total, kept_ms, deadline_ms, now_ms, wait_ms, opens_at, fields = answer
        ticket = dict(zip(fields[::2], fields[1::2], strict=True))
        now = int(now_ms)
        is_streaming = ticket[b"streaming"] == b"1"
        return Standing(
            tier=ticket[b"tier"].decode(),
            status=TicketStatus(ticket[b"status"].decode()),
            position=position,
            total_waiting=total,
            wait_s=None if wait_ms < 0 else wait_ms / 1000,
            opens_at=_as_iso(opens_at / 1000) if opens_at else None,
            since_issue_s=_since_s(now, ticket[b"issuedAt"]),
            node=Address.parse(ticket[b"owner"].decode()).server_id if is_streaming else None,
            unseen_s=_since_s(now, ticket[b"lastSeen"]),
            kept_s=max(0, kept_ms) / 1000,
            deadline_s=None if deadline_ms is None else max(0.0, -_since_s(now, deadline_ms)),
        )

    async def _change(self, action: str, operator: str, *args: Argument) -> Change:
        names = [keys.PORTAL_CONFIG, keys.AUDIT_LOGS, keys.AUDIT_PENDING]
        changed, before, after = await self._call(
            "admission_change", names, action, as_field(operator), *args
        )
        return Change(changed == 1, float(before), float(after))

    async def _execute(self, *command: Argument) -> Any:
        with redis_away_is_store_away():
            return await self._redis.execute_command(*command)

    async def _call(self, function: str, names: Sequence[str], *args: Argument) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


def _as_iso(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _since_s(now_ms: int, then_ms: bytes) -> float:
    return (now_ms - int(then_ms)) / 1000
