"""Every Redis key that lobbyd uses, as a function of what it names.

The names are fixed by the system's design: operators look for them in a running Redis, so they
are spelled once, here, and nowhere else. `docs/operations.md` lists what each holds.
"""

from functools import cache

from protocol.queues import Lane
from storage.escaping import escaped

EVENT_BUS = "event_bus"
"""The queue of what one part announces to the others; each kind of consumer has a group of its own."""

STATUS_QUEUE = "status_queue"
"""The queue of `server_status` messages, read by the status manager alone."""

SERVER_IDS = "server_ids"
"""Set of every server id that has ever announced itself (an index for the status keys)."""

QUEUE_IDS = "queue_ids"
"""Set of the ids of all queues (an index for their meta)."""

USERNAMES = "usernames"
"""Set of folded usernames: a first, cheap duplicate check; SQL decides."""

EMAILS = "emails"
"""Set of keyed hashes of email addresses: a first, cheap duplicate check; SQL decides."""

PORTAL_WAITING = "queue:portal"
"""Sorted set of waiting tickets in order of admission."""

PORTAL_READY = "queue:portal:ready"
"""Sorted set of READY tickets by the millisecond at which their finalize deadline passes."""

PORTAL_AWAY = "queue:away:portal"
"""Sorted set of tickets that were passed over, by the ms until which their places are kept."""

PORTAL_NODES = "queue:nodes:portal"
"""Hash, by server id, of the first connection number that can be open there: lower ones are gone."""

PORTAL_CONFIG = "queue:config:portal"
"""Hash of how many are admitted a minute: `admitRate, podCount, totalRate`, and what operators said."""

PORTAL_STATS = "queue:stats:portal"
"""Hash of the admission ledger and averages."""

PORTAL_BUCKET = "queue:bucket:portal"
"""Hash of the admission bucket, and of what waits are told from: see functions/pace.lua and estimates.lua."""

PORTAL_UNTOLD = "queue:untold:portal"
"""Sorted set of READY tickets whose players may not have been told yet, by when they became READY."""

PORTAL_WINDOW = "queue:window:portal"
"""List of `ms:count` of the admissions inside the guarded window, oldest first."""

PORTAL_SURVEY = "queue:survey:portal"
"""String with expiry: the login worker that walks the waiting room now (a lease)."""

SUBMITTED_SCORES = "ranking_queue:submit"
"""The queue of accepted scores, on their way to SQL and the boards."""

RANKING_REMOVED = "ranking:removed"
"""Set of users whose scores count on no board; `""` is always in it, so that a Redis which lost it shows."""

RANKING_CHANGED = "ranking:changed"
"""Hash of boards whose top has changed: type to period, and `{type}:told` to the ms of the last broadcast."""

RANKING_OVERTAKEN = "ranking:overtaken"
"""Hash of who is to hear that a friend overtook them, to `friendId|score|rank` of the latest."""

RANKING_OVERTAKEN_DUE = "ranking:overtaken:due"
"""Sorted set of users by the ms from which they may hear of a friend again."""

MONITORING_METRICS = "monitoring:metrics"
"""Hash of the newest sample of each source, and `at`, when it was taken."""

MONITORING_HISTORY = "monitoring:history"
"""Stream of samples of the whole system, a bounded number of them."""

MONITORING_ALERTS = "monitoring:alerts"
"""Hash of the open alerts by what they are about."""

MONITORING_PAST_ALERTS = "monitoring:alerts:past"
"""List of what became of alerts, newest first, a bounded number of them."""

SCALING_DECISIONS = "scaling:decisions"
"""String with expiry: how many workers of each kind there are and should be, and why."""

SCALING_FOLLOWER = "scaling:follower"
"""String with expiry: who starts and ends workers by the decisions now (a lease)."""

MONITORING_LEAD = "monitoring:lead"
"""String with expiry: the operations worker that watches now (a lease)."""

GAME_FEED = "game_feed"
"""Stream of who began and ceased to wait for opponents, kept for a minute: workers remember the rest."""

GAME_DEADLINES = "game_deadlines"
"""Sorted set of the players who wait for opponents, by when they are told that there are none."""

GAME_ENTRIES = "game_entries"
"""String: the next name of a stay in a queue of players."""

GAME_UNTOLD = "game_untold"
"""Sorted set of sessions of play whose players may not have been told yet, by when they were made."""

GAME_UNWRITTEN = "game_unwritten"
"""Sorted set of sessions of play that the database may not know yet, by when their players were told."""

GAME_SWEEPER = "game_sweeper"
"""String with expiry: the matching worker that widens searches and ends waits now (a lease)."""

AUDIT_LOGS = "iam:audit:logs"
"""List of what was decided and done, newest first: `time|who|action|resource|result|policy`."""

AUDIT_PENDING = "iam:audit:pending"
"""Stream of what is in the audit log and still to be written to SQL."""

AUDIT_LOST = "iam:audit:lost"
"""String: how many entries of the audit log, ever, did not come to SQL, since too many waited for it."""

AUDIT_LEASE = "iam:audit:lease"
"""String with expiry: the login worker that writes the audit log to SQL now (a lease)."""

POLICY_VERSION = "iam:policy:cache:last_update"
"""String: the ISO time of the last change of a policy or group, to the µs; what is cached is good for it."""

POLICY_INDEX = "iam:policy:cache:index"
"""String with expiry: JSON of the policies and groups that are in the cache, and for which version."""

POLICY_PREFIX = "iam:policies:"
GROUP_PREFIX = "iam:groups:"
"""Functions make the names of policies and groups from these."""

PORTAL_UNSAVED = "portal_unsaved"
"""List of the tasks that changed since the database was told, the oldest changes first."""

PORTAL_ARCHIVE = "portal_archive"
"""String with expiry: the portal worker that writes tasks to the database now (a lease)."""

PORTAL_RESTORED = "portal_restored"
"""String: the run of Redis that has the open tasks; for any other they are looked up in the database."""


TICKET_PREFIX = "ticket:"
TICKET_CLIENT_PREFIX = "sse:clients:"
USER_PREFIX = "user:"
USER_TICKET_SUFFIX = ":ticket"
SESSION_PREFIX = "session:"
GAME_MATCH_PREFIX = "game_match:"
GAME_WAITING_PREFIX = "game_queue:"
GAME_SESSION_PREFIX = "game_session:"
GAME_STATS_PREFIX = "game_stats:"
TASK_PREFIX = "portal_task:"
TASK_QUEUE_PREFIX = "portal_queue:"
USER_TASKS_PREFIX = "portal_user:"
"""Functions make the names of tickets, users and tasks that they find on the way from these."""

NODE_QUEUE_SUFFIX = "_Q"


def server_status(server_id: str) -> str:
    """Hash of a process's status as operators see it."""
    return f"SERVER_ID:{server_id}:status"


def server_lease(server_id: str) -> str:
    """String with expiry: the one live process that may use this server id."""
    return f"SERVER_ID:{server_id}:lease"


def server_dismissal(server_id: str) -> str:
    """String with expiry: the process of this server id that an operator has asked to end."""
    return f"SERVER_ID:{server_id}:drain"


def node_queue(server_id: str) -> str:
    """The queue id of a socket node's own queue of replies and events."""
    return f"{server_id}{NODE_QUEUE_SUFFIX}"


@cache
def lane_queue(worker: str, lane: Lane) -> str:
    """The queue id of the requests for one kind of worker in one lane, e.g. `login_queue:high`."""
    return f"{worker}_queue:{lane.value}"


def queue_meta(queue_id: str) -> str:
    """Hash of how a queue was created."""
    return f"queue_meta:{queue_id}"


def queue_priority(name: str) -> str:
    """Hash with expiry: a queue's or a kind of worker's `new_priority`, why, and when it was said."""
    return f"queue_priority:{name}"


def queue_stats(queue_id: str) -> str:
    """Hash of a queue's running counts."""
    return f"queue_stats:{queue_id}"


def dead_letters(queue_id: str) -> str:
    """Stream of the entries of a queue that were given up on, with their cause."""
    return f"dead_letters:{queue_id}"


def user(user_id: str) -> str:
    """Hash: the cached account."""
    return f"{USER_PREFIX}{user_id}"


def user_ticket(user_id: str) -> str:
    """String with expiry: the user's one ticket id."""
    return f"{USER_PREFIX}{user_id}{USER_TICKET_SUFFIX}"


def user_raise(user_id: str) -> str:
    """The band of the waiting room that a user is raised to, as long as that lasts."""
    return f"{USER_PREFIX}{user_id}:raised"


def user_groups(user_id: str) -> str:
    """Set with expiry: the cached ids of the user's groups; `""` alone for none, `?…` while being read."""
    return f"iam:user:{user_id}:groups"


def group(group_id: str) -> str:
    """Hash with expiry: a cached group."""
    return f"{GROUP_PREFIX}{group_id}"


def permission(user_id: str, action: str, resource: str) -> str:
    """Hash with expiry: a decision, `iam:permission:cache:{uid}:{action}:{resource}`.

    An action of two segments and a resource stand there as they are. No two decisions have the same name: the
    user id there has no colon and the action one, whatever the texts are. Braces, which would choose the slot
    in a cluster, are escaped.
    """
    noun, colon, verb = action.partition(":")
    first = f"{escaped(noun, ':{}')}:{escaped(verb, ':{}') if colon else '%'}"
    return f"iam:permission:cache:{escaped(user_id, ':{}')}:{first}:{escaped(resource, '{}')}"


def ticket(tid: str) -> str:
    """Hash: a ticket."""
    return f"{TICKET_PREFIX}{tid}"


def ticket_client(tid: str) -> str:
    """Set of the one client id that may stream a ticket."""
    return f"{TICKET_CLIENT_PREFIX}{tid}"


def node_of_queue(queue_id: str) -> str | None:
    """The server id of the node whose queue this is, None for any other queue."""
    return queue_id.removesuffix(NODE_QUEUE_SUFFIX) if queue_id.endswith(NODE_QUEUE_SUFFIX) else None


def refresh_tokens(user_id: str) -> str:
    """Hash: the user's families of refresh tokens, as hashes of themselves."""
    return f"refresh_tokens:{user_id}"


def session(user_id: str) -> str:
    """Hash: the signed-in user's stay, and the one connection that holds it."""
    return f"{SESSION_PREFIX}{user_id}"


def places(user_id: str) -> str:
    """Hash with expiry: where the user has logged in from, as keyed hashes, and when last."""
    return f"places:{user_id}"


def request_record(scope: str) -> str:
    """String with expiry: the first result of a request, so that a repeat has no second effect."""
    return f"request:{scope}"


def limit(kind: str, subject: str) -> str:
    """String with expiry: how often `subject` did `kind` in the current period."""
    return f"limit:{kind}:{subject}"


def board(board_type: str, period: str, game_type: str | None = None) -> str:
    """Sorted set of the best scores of a period, of one game or of all; `storage/placing.py` says how."""
    name = f"ranking:{board_type}:{period}"
    return name if game_type is None else f"{name}:{game_type}"


def ranking_friends(user_id: str) -> str:
    """Sorted set with expiry: the user and their friends, by their numbers on the all-time board."""
    return f"ranking:friends:{user_id}"


def temp_score(user_id: str) -> str:
    """Hash with expiry: the score that the user submitted last."""
    return f"temp_score:{user_id}"


def session_result(game_session_id: str, user_id: str) -> str:
    """String with expiry: the task of the user's result of a game session."""
    return f"ranking:result:{game_session_id}:{user_id}"


def game_match(user_id: str) -> str:
    """Hash: a player who waits for opponents or is in a match."""
    return f"{GAME_MATCH_PREFIX}{user_id}"


def game_waiting(difficulty: str, level: int) -> str:
    """Sorted set of the players who wait for opponents, by since when. No lane is called like it."""
    return f"{GAME_WAITING_PREFIX}{difficulty}:{level}"


def game_session(session_id: str) -> str:
    """Hash with expiry: a session of play that goes on."""
    return f"{GAME_SESSION_PREFIX}{session_id}"


def game_stats(difficulty: str) -> str:
    """Hash of how the queues of a difficulty fared: counts and averages, by level."""
    return f"{GAME_STATS_PREFIX}{difficulty}"


def task(task_id: str) -> str:
    """Hash: a task of the portal."""
    return f"{TASK_PREFIX}{task_id}"


def task_queue(task_type: str) -> str:
    """The queue id of the accepted tasks of one kind, e.g. `portal_queue:file_upload`."""
    return f"{TASK_QUEUE_PREFIX}{task_type}"


def task_order(task_type: str) -> str:
    """Sorted set of the tasks that wait, as entries of their queue, by their turn."""
    return f"portal_order:{task_type}"


def task_shares(task_type: str) -> str:
    """Sorted set of each waiting user's share in each lane by its last turn."""
    return f"portal_shares:{task_type}"


def task_delayed(task_type: str) -> str:
    """Sorted set of the tasks that are tried again later, by the millisecond at which they are."""
    return f"portal_delayed:{task_type}"


def task_pace(task_type: str) -> str:
    """Hash: the clock of the order, the mean duration in ms, and the newest entry."""
    return f"portal_pace:{task_type}"


def user_tasks(user_id: str) -> str:
    """Set of a user's open tasks."""
    return f"{USER_TASKS_PREFIX}{user_id}"
