"""Every setting of lobbyd, declared once: its type, range, default and meaning.

A new setting is one line here and one in `config.toml`; `tests/runtime/test_config.py` holds them together.
A key names its unit (`_s` seconds, `_bytes`, `_per_minute`); one without a unit is a count.
"""

from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Duration = Annotated[float, Meta(gt=0, le=31_536_000)]  # a year: finite, so that a timer can hold it
FrameBytes = Annotated[int, Meta(ge=64, le=67_108_864)]
ServerId = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", extra={"expected": "1 to 64 letters, digits, - or _"}
    ),
]
Share = Annotated[float, Meta(gt=0, le=1)]
Host = Annotated[str, Meta(min_length=1, extra={"expected": "a host name or address"})]
Secret = Annotated[str, Meta(extra={"secret": True})]
RedisUrl = Annotated[
    Secret,
    Meta(
        pattern=r"\A((redis|rediss|unix)://.+)?\Z",
        extra={"expected": 'a URL such as redis://127.0.0.1:6379/0, or ""'},
    ),
]
DatabaseUrl = Annotated[
    Secret,
    Meta(
        pattern=r"\A(mysql\+aiomysql://.+|sqlite\+aiosqlite:///.+)?\Z",
        extra={"expected": 'mysql+aiomysql://user@host/name, sqlite+aiosqlite:///path, or ""'},
    ),
]

Search = Annotated[
    str,
    Meta(
        pattern=r"\A0:[0-9]{1,2}\+?( [0-9]{1,2}:[0-9]{1,2}\+?)*\Z",
        extra={"expected": 'steps such as "0:0 5:3 10:10+": seconds waited, levels, + for other regions'},
    ),
]


def is_secret(annotation: Any) -> bool:
    """Whether values of this annotated type must not be shown (credentials, URLs that may carry some)."""
    return any(
        (meta.extra or {}).get("secret", False)
        for meta in getattr(annotation, "__metadata__", ())
        if isinstance(meta, Meta)
    )


Score = Annotated[int, Meta(ge=1, le=2**43)]
GameName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of `config.toml`; immutable, and its repr hides what is secret."""

    def __repr__(self) -> str:
        shown = (f"{key}={value!r}" for key, value in self.__rich_repr__())
        return f"{type(self).__name__}({', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        hints = get_type_hints(type(self), include_extras=True)
        return [
            (key, "***" if value and is_secret(hints[key]) else value)
            for key, value in msgspec.structs.asdict(self).items()
        ]


class RedisSettings(Section, frozen=True):
    """Where the hot state and the queues live."""

    url: Annotated[RedisUrl, 'Redis or Valkey; "" starts the embedded one.'] = ""


class DatabaseSettings(Section, frozen=True):
    """Where accounts and everything durable live."""

    url: Annotated[DatabaseUrl, 'MariaDB; "" uses SQLite in the data directory.'] = ""


class SocketdSettings(Section, frozen=True):
    """A socket node: its name, its door and the patience it has with connections."""

    server_id: Annotated[ServerId, "This node's name; one live process may bear it."] = "SOCK001"
    host: Annotated[Host, "Address to listen on; 0.0.0.0 for every IPv4 interface."] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535), "TCP port to listen on; 0 takes any free one."] = 7400
    tls_certificate: Annotated[str, 'Certificate chain (PEM) for TLS; "" speaks plain TCP.'] = ""
    tls_key: Annotated[str, "The certificate's key (PEM, no passphrase); SIGHUP reloads both."] = ""
    max_connections: Annotated[Count, "Connections a node holds; later ones are turned away."] = 200_000
    keepalive_s: Annotated[Duration, "KEEPALIVE after our silence; a peer silent for three is IDLE."] = 15.0
    hello_timeout_s: Annotated[Duration, "A connection that says no hello for so long is closed."] = 10.0
    request_timeout_s: Annotated[Duration, "A request that no worker answers gets TIMEOUT."] = 10.0
    drain_timeout_s: Annotated[Duration, "From SIGTERM to exit, finishing accepted work."] = 45.0
    max_write_buffer_bytes: Annotated[FrameBytes, "A client that leaves more unread is cut."] = 262_144
    max_frame_bytes: Annotated[FrameBytes, "Longest frame of a signed-in user."] = 1_048_576
    max_frame_bytes_before_sign_in: Annotated[FrameBytes, "Longest frame before sign-in."] = 8_192
    queue_max_size: Annotated[Count, "Replies and events waiting for a node before it is BUSY."] = 10_000
    queue_expire_s: Annotated[Duration, "Replies and events older than this are dropped."] = 3_600.0


class QueuesSettings(Section, frozen=True):
    """The queues of requests between nodes and workers."""

    request_max_size: Annotated[Count, "Requests waiting in one lane before publishers get BUSY."] = 100_000
    request_expire_s: Annotated[Duration, "Requests older than this are dropped unanswered."] = 60.0
    lease_s: Annotated[Duration, "Work unacknowledged for so long is claimed from its worker."] = 5.0
    max_deliveries: Annotated[Count, "Deliveries of one entry before it is dead-lettered."] = 4


class LoginSettings(Section, frozen=True):
    """The waiting room: how many are let in, and how long places are kept."""

    admit_rate: Annotated[Count, "Players admitted each minute for each pod."] = 200
    pod_count: Annotated[Count, "Game pods; admit_rate times this is the total rate a minute."] = 3
    max_queue_length: Annotated[Count, "Players waiting before a login gets QUEUE_FULL."] = 50_000
    max_wait_factor: Annotated[
        float, Meta(ge=1, le=1000), "Nobody waits for more admissions than this times those by arrival."
    ] = 2.0
    finalize_deadline_s: Annotated[Duration, "A READY ticket unused for so long gives its slot away."] = 60.0
    ticket_ttl_s: Annotated[Duration, "A place is kept so long after its player was last seen."] = 900.0
    opens_at: Annotated[
        str,
        Meta(
            pattern=r"\A([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}))?\Z",
            extra={"expected": 'a time with its zone, such as 2024-12-18T18:00:00+09:00, or ""'},
        ),
        'Nobody is let in before, and who comes before is drawn; "" for no opening.',
    ] = ""


class RankingSettings(Section, frozen=True):
    """Scores and boards: the rules of the games, the zone of their days, how long past ones are at hand."""

    time_zone: Annotated[
        str,
        Meta(min_length=1, extra={"expected": "a time zone such as Asia/Seoul"}),
        "Zone in which days, weeks and months begin.",
    ] = "UTC"
    score_ceilings: Annotated[
        dict[GameName, Score],
        Meta(min_length=1, extra={"expected": "a table of games such as { suika = 10_000_000 }"}),
        "Highest score of each game; others are refused.",
    ] = msgspec.field(default_factory=lambda: {"suika": 10_000_000})
    difficulties: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=16)]],
        Meta(min_length=1, extra={"expected": 'a list such as ["easy", "hard"]'}),
        "Difficulties that a game can be played at.",
    ] = msgspec.field(default_factory=lambda: ["easy", "medium", "hard"])
    min_session_s: Annotated[Duration, "A game session younger than this cannot have a result."] = 1.0
    min_session_s_of: Annotated[
        dict[GameName, Duration],
        Meta(extra={"expected": "a table of seconds such as { suika = 30.0 }"}),
        "The same where a game has its own, as in { suika = 30.0 }.",
    ] = msgspec.field(default_factory=dict)
    submit_max_size: Annotated[Count, "Accepted scores waiting before a submission gets BUSY."] = 200_000
    keep_past_s: Annotated[Duration, "A past board stays in Redis for so long, then is read from SQL."] = (
        172_800.0
    )
    max_friends: Annotated[int, Meta(ge=1, le=1000), "Friends that one player may have."] = 200


class MatchingSettings(Section, frozen=True):
    """Finding opponents: how far the search goes for who has waited so long, and what skill counts."""

    easy: Annotated[Search, "Steps of seconds waited:levels up and down, + for other regions."] = (
        "0:0 2:1 4:3 6:5+ 10:10+ 20:30+ 40:99+"
    )
    medium: Annotated[Search, "The same for medium."] = "0:0 2:1 4:3 6:5+ 10:10+ 20:30+ 40:99+"
    hard: Annotated[Search, "The same for hard."] = "0:0 2:1 4:3 6:5+ 10:10+ 20:30+ 40:99+"
    by_skill: Annotated[
        list[Literal["easy", "medium", "hard"]],
        Meta(extra={"expected": 'a list such as ["hard"]'}),
        "Difficulties at which skill counts, as results show it.",
    ] = []
    session_ttl_s: Annotated[Duration, "A session that nobody finishes keeps its players so long."] = 7200.0


class PortalSettings(Section, frozen=True):
    """Slow work: tasks, files and notifications."""

    max_open_tasks: Annotated[Count, "Tasks of one user that are not over; more get TOO_MANY_TASKS."] = 1000
    max_waiting_tasks: Annotated[Count, "Tasks of one kind that wait before more get BUSY."] = 100_000
    result_ttl_s: Annotated[
        Duration, "How long Redis keeps what became of a task; the database does longer."
    ] = 86_400.0
    storage_url: Annotated[
        str, 'Files: a folder, s3://bucket/prefix …; "" is a folder of the data directory.'
    ] = ""
    quota_bytes: Annotated[Count, "What the files of one user may take together."] = 5_368_709_120
    upload_ttl_s: Annotated[Duration, "An upload that is unfinished for so long is removed."] = 86_400.0
    processing_memory_bytes: Annotated[Count, "Memory that one data processing may take."] = 1_073_741_824
    processing_time_s: Annotated[Duration, "Time that one data processing may take."] = 60.0
    smtp_url: Annotated[
        Secret,
        Meta(
            pattern=r"\A(smtps?://.+)?\Z",
            extra={"expected": 'a URL such as smtp://user:password@host:587, or ""'},
        ),
        'Server that sends email; "" sends none.',
    ] = ""
    smtp_sender: Annotated[str, "Address that email comes from."] = "lobbyd@localhost"


class AuthSettings(Section, frozen=True):
    """Passwords, tokens and the secret that they rest on."""

    bcrypt_cost: Annotated[int, Meta(ge=4, le=16), "Cost of a password hash; each step doubles it."] = 12
    access_token_ttl_s: Annotated[Duration, "Life of an access token."] = 900.0
    refresh_token_ttl_s: Annotated[Duration, "Life of a refresh token."] = 604_800.0
    hash_threads: Annotated[int, Meta(ge=0), "Threads that hash passwords; 0 is one a core."] = 0
    hash_backlog: Annotated[Count, "Passwords waiting to be hashed before a login gets BUSY."] = 256
    secret: Annotated[Secret, "Master secret, at least 32 characters, the same in every process."] = ""
    secret_file: Annotated[str, "File that holds the master secret instead."] = ""


class AuditSettings(Section, frozen=True):
    """Who did what: how long the database remembers it."""

    keep_s: Annotated[
        float,
        Meta(ge=0, le=3_153_600_000),  # a hundred years: finite, as a Duration is
        "An entry of the audit log stays in the database for so long; 0 for good.",
    ] = 31_536_000.0


class LimitsSettings(Section, frozen=True):
    """What one user, address or account may ask for."""

    requests_per_second: Annotated[Count, "Requests of one user or connection; more get RATE_LIMITED."] = 100
    ipv6_prefix: Annotated[
        int, Meta(ge=32, le=128), "Bits that IPv6 addresses share which count as one address."
    ] = 64
    connections_per_ip: Annotated[Count, "Connections from one address to one node."] = 100
    registrations_per_ip_per_hour: Annotated[Count, "Accounts made from one address."] = 20
    refused_registrations_per_ip_per_hour: Annotated[
        Count, "Names and emails found taken from one address."
    ] = 100
    passwords_per_ip: Annotated[Count, "Passwords of one address that a worker has in hand."] = 64
    login_attempts_per_minute: Annotated[Count, "Failed logins on one account from one address."] = 10
    failed_logins_per_ip_per_minute: Annotated[Count, "Failed logins from one address."] = 100
    failed_logins_per_account_per_hour: Annotated[
        Count, "Failed logins on one account at which strangers have risk 1."
    ] = 100
    risk_limit: Annotated[
        float, Meta(gt=0.5, le=1.0), "Risk of a login, 0 to 1, from which on it must wait."
    ] = 0.8


class StatusSettings(Section, frozen=True):
    """How processes show that they live."""

    heartbeat_s: Annotated[Duration, "Time between two heartbeats of a process."] = 5.0
    missed_heartbeats: Annotated[Count, "Heartbeats missed before a process is DOWN."] = 3

    @property
    def patience_s(self) -> float:
        """How long a process may be silent before it is DOWN, and its name free for another."""
        return self.heartbeat_s * self.missed_heartbeats


class MonitoringSettings(Section, frozen=True):
    """What operators are warned of, and how."""

    every_s: Annotated[Duration, "Time between two samples of the whole system."] = 5.0
    priorities_every_s: Annotated[Duration, "Time between two looks at how much each queue gets."] = 30.0
    queue_share: Annotated[Share, "Alert: a queue is full to this share of its size."] = 0.8
    oldest_age_s: Annotated[Duration, "Alert: the oldest entry of a queue waits for so long."] = 30.0
    error_share: Annotated[Share, "Alert: this share of requests fails."] = 0.01
    latency_p99_ms: Annotated[
        float, Meta(gt=0, le=3_600_000), "Alert: one request in a hundred takes longer."
    ] = 1000.0
    dead_letters: Annotated[int, Meta(ge=0), "Alert: a queue has more dead letters."] = 0
    estimate_error_s: Annotated[
        Duration, "Alert: players in line are let in so much off what they were told."
    ] = 15.0
    redis_memory_bytes: Annotated[int, Meta(ge=0), "Alert: Redis uses more; 0 for no alert."] = 17_179_869_184
    escalate_after_s: Annotated[Duration, "A WARNING that lasts so long becomes CRITICAL."] = 300.0
    clear_after_s: Annotated[Duration, "An alert closes once all has been well for so long."] = 10.0
    webhook: Annotated[
        Secret,
        Meta(
            pattern=r"\A(https?://\S+)?\Z",
            extra={"expected": 'a URL such as https://hooks.example.com/alerts, or ""'},
        ),
        'URL that gets each alert as a JSON POST; "" for none.',
    ] = ""


class MetricsSettings(Section, frozen=True):
    """Where each process serves its figures for Prometheus."""

    host: Annotated[Host, "Address that /metrics is served at; never one that players reach."] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65_435), "First port for it; each process takes the first that is free. 0: none."
    ] = 0


class ScalingSettings(Section, frozen=True):
    """How many workers of a kind there should be."""

    every_s: Annotated[Duration, "Time between two looks at the load."] = 10.0
    least: Annotated[Count, "Workers of a kind at least."] = 1
    most: Annotated[Count, "Workers of a kind at most."] = 8
    more_after_s: Annotated[Duration, "Time from one change to more workers."] = 20.0
    fewer_after_s: Annotated[Duration, "Time of little load before there are fewer workers."] = 120.0


class LogSettings(Section, frozen=True):
    """What the processes write to stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        "debug, info, warning or error; lesser lines are left out.",
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], "json, console, or auto: console on a terminal."
    ] = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings. `Config()` is the defaults; `runtime.config.load` reads the sources."""

    redis: RedisSettings = RedisSettings()
    database: DatabaseSettings = DatabaseSettings()
    socketd: SocketdSettings = SocketdSettings()
    queues: QueuesSettings = QueuesSettings()
    login: LoginSettings = LoginSettings()
    ranking: RankingSettings = RankingSettings()
    matching: MatchingSettings = MatchingSettings()
    portal: PortalSettings = PortalSettings()
    auth: AuthSettings = AuthSettings()
    audit: AuditSettings = AuditSettings()
    limits: LimitsSettings = LimitsSettings()
    status: StatusSettings = StatusSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    metrics: MetricsSettings = MetricsSettings()
    scaling: ScalingSettings = ScalingSettings()
    log: LogSettings = LogSettings()
