"""From what happened in a rush to its figures and goals.

Waits are from a ticket's issue, or from the opening where that is later, to `readyAt` in the ticket's hash;
`from_issue` are the same from the issue in any case. Goals for other numbers of players and other rates are
those of 100,000 at 1,700/s (58.8 s) as shares of players/rate: all in within 1.02, a mean wait of 0.51, a
longest one of 1.054; Redis has 20 MB and 4.8 kB a player. Where processes are killed a sign-in may take as
long as a dead worker's request is left to it, `queues.lease_s`, and 2 s.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from bench.harness import Goal, at_least, at_most, quantile, rounded
from bench.rush_story import Story
from bench.rush_watch import Ticket, kind
from runtime.settings import QueuesSettings

WINDOW_S, SHORT_WINDOW_S = 30.0, 10.0
STEP_MS = 100
MOST_RATE_ERROR = 0.01

ALL_IN, MEAN_WAIT, LONGEST_WAIT = 60 / 58.82, 30 / 58.82, 62 / 58.82
FAULT_S = 2.0
MOST_COMMANDS = 6
"""So many of Redis's commands are shown, the longest first. A Function's time has its commands' in it."""

REDIS_BYTES, REDIS_BYTES_EACH = 20_000_000, 4_800


@dataclass(frozen=True)
class Rush:
    """What happened. `cpu_s` is by phase, then by process; times `_at` are in s since the epoch."""

    players: int
    rate: float
    has_faults: bool
    opened_at: float
    connect_s: float
    login_s: float
    stories: Sequence[Story]
    tickets: Mapping[str, Ticket]
    cpu_s: Mapping[str, Mapping[str, float]]
    phase_s: Mapping[str, float]
    resident_bytes: Mapping[str, int]
    redis_command_s: Mapping[str, float]
    redis_before_bytes: int
    redis_peak_bytes: int

    @property
    def admitted(self) -> list[Ticket]:
        """The tickets that became READY, in the order in which they did."""
        ready = (ticket for ticket in self.tickets.values() if ticket.ready_ms >= 0)
        return sorted(ready, key=lambda ticket: ticket.ready_ms)

    def wait_s(self, ticket: Ticket) -> float:
        """How long a ticket waited, once the room was open."""
        return (ticket.ready_ms - max(ticket.issued_ms, self.opened_at * 1000)) / 1000


def figures(rush: Rush) -> dict[str, float]:
    """Everything that was found, by name; the last part of a name is its unit."""
    found = {
        "players": rush.players,
        "rate_set_per_s": rush.rate,
        "connect_s": rush.connect_s,
        "login_s": rush.login_s,
        "tickets_issued_per_s": len(rush.tickets) / rush.login_s,
        **_admission(rush),
        **_waits(rush),
        **_latencies(rush.stories),
        **_news(rush),
        **_accidents(rush),
        **_costs(rush),
    }
    return {name: rounded(value) if isinstance(value, float) else value for name, value in found.items()}


def goals(rush: Rush, found: Mapping[str, float]) -> list[Goal]:
    """What was to be reached."""
    whole_s = rush.players / rush.rate
    late_s = QueuesSettings().lease_s + FAULT_S if rush.has_faults else 0.0
    waits = [rush.wait_s(ticket) for ticket in rush.admitted] or [float("inf")]
    return [
        at_most("s from the opening to the last one in", found["all_in_s"], ALL_IN * whole_s + late_s),
        at_most("s of waiting, mean", fmean(waits), MEAN_WAIT * whole_s),
        at_most("s of waiting, longest", max(waits), LONGEST_WAIT * whole_s),
        at_most("rate error in any window", found["rate_error_ratio"], MOST_RATE_ERROR),
        at_most("admitted in any 10 s by the rate's", found["most_in_10_s_ratio"], 1),
        at_most("players lost", found["lost"], 0),
        at_most("players admitted or signed in twice", found["doubled"], 0),
        at_most("order violations", found["order_violations"], 0),
        at_most("places that got worse without a reason", found["places_got_worse"], 0),
        at_least("players in", found["in"], rush.players),
        at_most("bytes of Redis", found["redis_peak_bytes"], REDIS_BYTES + REDIS_BYTES_EACH * rush.players),
    ]


def waiting(rush: Rush, step_ms: int = STEP_MS) -> list[tuple[float, int]]:
    """How many wait, step by step: seconds since the opening, and players."""
    issued = sorted(ticket.issued_ms for ticket in rush.tickets.values())
    ready = [ticket.ready_ms for ticket in rush.admitted]
    if not ready:
        return []
    opened_ms = round(rush.opened_at * 1000)
    return [
        ((ms - opened_ms) / 1000, bisect_left(issued, ms) - bisect_left(ready, ms))
        for ms in range(issued[0], ready[-1] + step_ms, step_ms)
    ]


def _admission(rush: Rush) -> dict[str, float]:
    """The rate reached beside the rate set."""
    ready = [ticket.ready_ms for ticket in rush.admitted]
    span_s = (ready[-1] - rush.opened_at * 1000) / 1000 if ready else 0.0
    window_s = min(WINDOW_S, span_s / 2)
    ended = [story.ready_at + story.finalize_s for story in rush.stories if story.pairs]
    return {
        "admission_s": span_s,
        "all_in_s": max(ended, default=float("inf")) - rush.opened_at,
        "admitted_per_s": len(ready) / span_s if span_s else 0.0,
        "rate_window_s": window_s,
        "rate_error_ratio": _rate_error(rush, ready, window_s),
        "longest_pause_between_admissions_ms": _longest_pause_ms(rush, ready),
        "most_in_10_s_ratio": _most(ready, SHORT_WINDOW_S) / (rush.rate * SHORT_WINDOW_S),
    }


def _longest_pause_ms(rush: Rush, ready: Sequence[int]) -> float:
    """The longest time without an admission since the opening."""
    since = [rush.opened_at * 1000, *ready[bisect_left(ready, rush.opened_at * 1000) :]]
    return max((later - earlier for earlier, later in pairwise(since)), default=0.0)


def _rate_error(rush: Rush, ready: Sequence[int], window_s: float) -> float:
    """The largest difference from the rate in any window in which somebody waited all along."""
    curve = [(ms, count) for ms, count in waiting(rush) if ms >= 0]
    steps = int(window_s * 1000 / STEP_MS)
    wanted, worst = rush.rate * steps * STEP_MS / 1000, 0.0
    empty_until = -1
    for index, (since_s, count) in enumerate(curve):
        if count == 0:
            empty_until = index
        if index - steps > empty_until:
            end_ms = rush.opened_at * 1000 + since_s * 1000
            first, last = bisect_left(ready, end_ms - steps * STEP_MS), bisect_left(ready, end_ms)
            worst = max(worst, abs((last - first) / wanted - 1))
    return worst


def _most(ready: Sequence[int], window_s: float) -> int:
    """The most that became READY in any window of this length."""
    counts = (index - bisect_left(ready, ms - window_s * 1000) + 1 for index, ms in enumerate(ready))
    return max(counts, default=0)


def _waits(rush: Rush) -> dict[str, float]:
    by_tier: dict[str, list[Ticket]] = defaultdict(list)
    for ticket in rush.admitted:
        by_tier[ticket.tier.lower()].append(ticket)
    found: dict[str, float] = {}
    for tier, tickets in sorted(by_tier.items()):
        found[f"{tier}_players"] = len(tickets)
        found |= _spread(f"{tier}_wait", "s", [rush.wait_s(ticket) for ticket in tickets])
        whole = [(ticket.ready_ms - ticket.issued_ms) / 1000 for ticket in tickets]
        found |= _spread(f"{tier}_wait_from_issue", "s", whole)
    return found


def _spread(name: str, unit: str, values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        f"{name}_mean_{unit}": fmean(ordered),
        f"{name}_p50_{unit}": quantile(ordered, 0.5),
        f"{name}_p99_{unit}": quantile(ordered, 0.99),
        f"{name}_max_{unit}": ordered[-1],
    }


def _latencies(stories: Sequence[Story]) -> dict[str, float]:
    return {
        **_spread("login", "ms", (story.login_s * 1000 for story in stories if story.login_s >= 0)),
        **_spread("finalize", "ms", (story.finalize_s * 1000 for story in stories if story.finalize_s >= 0)),
    }


def _news(rush: Rush) -> dict[str, float]:
    """What players were told while they waited, and how true it was."""
    told, errors = [], []
    for story in rush.stories:
        ticket = rush.tickets.get(story.tid)
        if ticket is None or ticket.ready_ms < 0 or story.ready_at < 0:
            continue
        told.append(story.ready_at * 1000 - ticket.ready_ms)
        if story.estimated_at >= 0:
            errors.append(abs(story.estimated_at + story.estimate_s - ticket.ready_ms / 1000))
    return {
        **_spread("ready_to_told", "ms", told),
        "estimates_told": len(errors),
        **_spread("estimate_error", "s", errors),
        "updates_each": fmean(story.updates for story in rush.stories),
        **_spread("largest_gap_between_news", "s", (story.largest_gap_s for story in rush.stories)),
    }


def _accidents(rush: Rush) -> dict[str, float]:
    stories = rush.stories
    failures = Counter(story.failure for story in stories if story.failure)
    return {
        "in": sum(story.pairs > 0 for story in stories),
        "lost": sum(story.pairs == 0 for story in stories),
        "doubled": sum(_is_doubled(story, rush.tickets.get(story.tid)) for story in stories),
        "order_violations": _violations(list(rush.tickets.values())),
        "order_known_exactly": sum(ticket.score is not None for ticket in rush.tickets.values()),
        "places_got_worse": sum(story.worse_places for story in stories),
        "passed_over": sum(ticket.passed_over for ticket in rush.tickets.values()),
        "returned_players": sum(story.returns > 0 for story in stories),
        "asked_again": sum(story.retries for story in stories),
        **{f"failed: {failure}": count for failure, count in failures.most_common(5)},
    }


def _is_doubled(story: Story, ticket: Ticket | None) -> bool:
    """Whether a player was admitted or signed in twice; to lose the turn and have another is neither."""
    has_two_turns = ticket is not None and ticket.passed_over
    return story.pairs > 1 or (story.readies > 1 and not has_two_turns)


def _violations(tickets: Sequence[Ticket]) -> int:
    """How many became READY later than somebody of their tier who certainly came after them.

    Who was passed over, being away, stands nowhere in the order.
    """
    in_order = [ticket for ticket in tickets if ticket.ready_ms >= 0 and not ticket.passed_over]
    return sum(
        _violations_of([each for each in in_order if each.tier == tier])
        for tier in {ticket.tier for ticket in tickets}
    )


def _violations_of(tickets: Sequence[Ticket]) -> int:
    arrivals = _arrivals(tickets)
    by_last = sorted(tickets, key=lambda ticket: arrivals[ticket.tid][1])
    violations, latest, before = 0, 0, 0
    for ticket in sorted(tickets, key=lambda ticket: arrivals[ticket.tid][0]):
        while arrivals[by_last[before].tid][1] < arrivals[ticket.tid][0]:
            latest = max(latest, by_last[before].ready_ms)
            before += 1
        violations += ticket.ready_ms < latest
    return violations


def _arrivals(tickets: Sequence[Ticket]) -> dict[str, tuple[float, float]]:
    """The earliest and the latest at which each ticket of a tier can have come, by its id.

    A score is the µs of arrival and something of the tier's own; without one the ms of issue is known.
    """
    of_tier = min(
        (each.score - each.issued_ms * 1000 for each in tickets if each.score is not None), default=0.0
    )

    def span(ticket: Ticket) -> tuple[float, float]:
        if ticket.score is not None:
            return ticket.score, ticket.score
        about = ticket.issued_ms * 1000 + of_tier
        return about - 1000, about + 1000

    return {ticket.tid: span(ticket) for ticket in tickets}


def _costs(rush: Rush) -> dict[str, float]:
    found: dict[str, float] = {
        "redis_before_bytes": rush.redis_before_bytes,
        "redis_peak_bytes": rush.redis_peak_bytes,
    }
    most = sorted(rush.redis_command_s.items(), key=lambda pair: -pair[1])[:MOST_COMMANDS]
    found |= {f"redis_in_{name}_s": seconds for name, seconds in most}
    for name, size in sorted(rush.resident_bytes.items()):
        found[f"{name}_resident_bytes"] = size
    for phase, seconds in rush.cpu_s.items():
        found[f"{phase}_phase_s"] = rush.phase_s[phase]
        by_kind: dict[str, float] = defaultdict(float)
        for name, spent_s in seconds.items():
            by_kind[kind(name)] += spent_s
        found |= {f"{phase}_cpu_of_{each}_s": spent_s for each, spent_s in sorted(by_kind.items())}
    for name, spent_s in sorted(rush.cpu_s["login"].items()):
        found[f"{name}_cpu_s"] = spent_s + rush.cpu_s["admission"].get(name, 0.0)
    return found
