"""The demo's crowd as a picture needs it: who is where, how fast they come in, what happened last."""

import heapq
import time
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from statistics import fmean

LAST_EVENTS = 4
RATE_WINDOW_S = 5.0
LEAST_SPAN_S = 2.0
"""Players who were all admitted within less say nothing about a rate."""

PREFIX = "demo-"
"""What the usernames of all guests begin with, so that no real player's is taken."""

NAMES = {
    "ara": "아라", "areum": "아름", "bitna": "빛나", "bora": "보라", "byeol": "별", "chaewon": "채원",
    "dain": "다인", "danbi": "단비", "doyun": "도윤", "eunji": "은지", "eunwoo": "은우", "gaon": "가온",
    "garam": "가람", "haeun": "하은", "hajun": "하준", "hana": "하나", "haneul": "하늘", "hyejin": "혜진",
    "hyunwoo": "현우", "ian": "이안", "iseul": "이슬", "jihun": "지훈", "jimin": "지민", "jiwoo": "지우",
    "jiyu": "지유", "juwon": "주원", "maru": "마루", "minjun": "민준", "minseo": "민서", "miso": "미소",
    "nabi": "나비", "nara": "나라", "noeul": "노을", "nuri": "누리", "rowoon": "로운", "saebom": "새봄",
    "seoa": "서아", "seojun": "서준", "seoyeon": "서연", "siwoo": "시우", "sohee": "소희", "sol": "솔",
    "somi": "소미", "subin": "수빈", "sujin": "수진", "taeyang": "태양", "taeyun": "태윤", "woojin": "우진",
    "yejun": "예준", "yerin": "예린", "yuna": "유나", "yujin": "유진",
}  # fmt: skip
"""Given names, as a terminal can show them anywhere and as their bearers write them."""


class Tier(Enum):
    """What a player of the demo is; the value is what people read. The best comes first."""

    VIP = "VIP"
    PREMIUM = "PREMIUM"
    NORMAL = "NORMAL"


class State(Enum):
    """Where a player of the demo is; the value is what people read."""

    OUTSIDE = "on the way"
    HASHING = "hashing"
    WAITING = "waiting room"
    ADMITTED = "admitted"
    IN = "signed in"
    LOST = "turned away"


@dataclass(eq=False, slots=True)
class Guest:
    """One player: `name` is the username, `ticket_s` when a ticket came, `position` begins at 1."""

    name: str
    nickname: str
    tier: Tier
    state: State = State.OUTSIDE
    position: int = 0
    ticket_s: float = 0.0


class Act(Enum):
    """The two acts of the demo; the value is what people read."""

    ARRIVAL = "log in with passwords"
    RUSH = "come back at once"


class Crowd:
    """All players of the demo. Times are in s since the act began."""

    def __init__(self, count: int, rate_per_s: float) -> None:
        self.guests = [_guest(number) for number in range(count)]
        self.rate_per_s = rate_per_s
        self.counts = Counter({State.OUTSIDE: count})
        self.events: deque[str] = deque(maxlen=LAST_EVENTS)
        self.causes: Counter[str] = Counter()
        self.took_s: dict[Act, float] = {}
        self.begin(Act.ARRIVAL)

    def begin(self, act: Act) -> None:
        """Begin an act: whoever is not lost is on the way again."""
        self.act = act
        self.admissions: list[float] = []
        self.waits: list[float] = []
        self.waits_of: dict[Tier, list[float]] = {tier: [] for tier in Tier}
        self.most_waiting = 0
        for guest in self.guests:
            if guest.state is not State.LOST:
                self.move(guest, State.OUTSIDE)
        self._began_s = time.monotonic()

    def end(self) -> None:
        """End the act."""
        self.took_s[self.act] = self.now_s

    @property
    def now_s(self) -> float:
        """How old the act is; stands still once it has ended."""
        return self.took_s.get(self.act, time.monotonic() - self._began_s)

    @property
    def average_wait_s(self) -> float | None:
        """How long those who were admitted waited, on average; None before the first."""
        return fmean(self.waits) if self.waits else None

    @property
    def admitted_per_s(self) -> float:
        """The rate of the last few seconds."""
        window_s = min(RATE_WINDOW_S, max(self.now_s, 1.0))
        return sum(at > self.now_s - window_s for at in self.admissions) / window_s

    @property
    def overall_admitted_per_s(self) -> float | None:
        """The rate of the whole act, from the first to the last; None where that is too short to tell."""
        span_s = self.admissions[-1] - self.admissions[0] if self.admissions else 0.0
        return (len(self.admissions) - 1) / span_s if span_s >= LEAST_SPAN_S else None

    def admitted_in_each_second(self, seconds: int) -> list[int]:
        """How many were admitted in each of the last whole seconds, the latest one last."""
        last = int(self.now_s)
        counted = Counter(int(at) for at in self.admissions)
        return [counted[second] for second in range(max(0, last - seconds), last)]

    @property
    def waiting(self) -> Counter[Tier]:
        """How many of each tier are in the waiting room."""
        return Counter(guest.tier for guest in self.guests if guest.state is State.WAITING)

    def next_in_line(self, most: int) -> list[str]:
        """The names of those whose turn is next."""
        waiting = (guest for guest in self.guests if guest.state is State.WAITING and guest.position)
        return [guest.name for guest in heapq.nsmallest(most, waiting, key=lambda guest: guest.position)]

    def move(self, guest: Guest, state: State) -> None:
        """The guest is somewhere else now."""
        self.counts[guest.state] -= 1
        self.counts[state] += 1
        guest.state = state

    def waits_for_turn(self, guest: Guest, position: int) -> None:
        """The guest has a ticket."""
        guest.ticket_s, guest.position = self.now_s, position
        self.move(guest, State.WAITING)
        self.most_waiting = max(self.most_waiting, self.counts[State.WAITING])

    def is_admitted(self, guest: Guest) -> None:
        """It is the guest's turn."""
        self.move(guest, State.ADMITTED)
        self.admissions.append(self.now_s)
        self.waits.append(self.now_s - guest.ticket_s)
        self.waits_of[guest.tier].append(self.waits[-1])

    def is_in(self, guest: Guest) -> None:
        """The guest is signed in."""
        self.move(guest, State.IN)
        self.events.append(f"{guest.name} is in after {self.now_s - guest.ticket_s:.1f} s")

    def is_lost(self, guest: Guest, cause: str) -> None:
        """The guest will not come in."""
        self.move(guest, State.LOST)
        self.causes[cause] += 1
        self.events.append(f"{guest.name} is turned away: {cause}")


def _guest(number: int) -> Guest:
    """Of a hundred one is a VIP and five are PREMIUM, as in the rush that lobbyd is made for."""
    name, nickname = list(NAMES.items())[number % len(NAMES)]
    again = number // len(NAMES)
    tier = Tier.VIP if number % 100 == 99 else Tier.PREMIUM if number % 20 == 18 else Tier.NORMAL
    return Guest(PREFIX + (f"{name}-{again + 1}" if again else name), nickname, tier)
