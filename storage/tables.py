"""The SQL tables, for MariaDB and SQLite alike. A change here needs a migration in `storage/migrations`.

Text compares byte by byte and trailing spaces count, on both databases. What only ASCII can be in,
above all keys, is stored as ASCII on MariaDB, which keeps its indexes small.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

# Every constraint has a name of our own: a later migration must be able to name what it drops.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _bytes() -> TypeEngine[bytes]:
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def _long_text() -> TypeEngine[str]:
    exact = mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin")
    return Text().with_variant(exact, "mysql")


users = Table(
    "users",
    metadata,
    Column("user_id", _ascii(32), primary_key=True, comment="the folded username"),
    Column("email_hash", _ascii(64), nullable=False, unique=True, comment="keyed hash of the folded address"),
    Column("email", _ascii(2048), nullable=False, comment="the address as given, encrypted"),
    Column("nickname", _text(32), nullable=False),
    Column("password_hash", _ascii(128), nullable=False, comment="bcrypt"),
    Column("role", _ascii(16), nullable=False, server_default="NORMAL"),
    Column("status", _ascii(16), nullable=False, server_default="ACTIVE", comment="ACTIVE or DISABLED"),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    Column("registration_id", _text(128), nullable=False, comment="the request that made the row"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

groups = Table(
    "groups",
    metadata,
    Column("group_id", _ascii(64), primary_key=True),
    Column("group_name", _text(64), nullable=False),
    Column("description", _text(255), nullable=False),
    Column("permissions", _ascii(2048), nullable=False, comment="names, joined by commas"),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", _ascii(64), ForeignKey(groups.c.group_id), primary_key=True),
    Column("user_id", _ascii(32), ForeignKey(users.c.user_id), primary_key=True, index=True),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

encryption_keys = Table(
    "encryption_keys",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="the newest is the current one"),
    Column("key_id", _ascii(32), nullable=False, unique=True, comment="names the key, does not give it away"),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    Column("created_by", _text(64), nullable=False, comment="the operator, or lobbyd"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

scores = Table(
    "scores",
    metadata,
    Column("task_id", _ascii(96), primary_key=True, comment="begins with the ms of submission"),
    Column("user_id", _ascii(32), nullable=False),
    Column("game_type", _ascii(32), nullable=False),
    Column("difficulty", _ascii(16), nullable=False),
    Column("score", BigInteger, nullable=False),
    Column("game_session_id", _ascii(64), nullable=True),
    Column("submitted_at", BigInteger, nullable=False, comment="ms since the epoch"),
    UniqueConstraint("game_session_id", "user_id"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

best_scores = Table(
    "best_scores",
    metadata,
    Column("period", _ascii(8), primary_key=True, comment="all, or a day such as 20241218"),
    Column("game_type", _ascii(32), primary_key=True),
    Column("user_id", _ascii(32), primary_key=True),
    Column("score", BigInteger, nullable=False),
    Column("reached_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

ranking_removals = Table(
    "ranking_removals",
    metadata,
    Column("user_id", _ascii(32), primary_key=True, comment="whose scores count no more"),
    Column("operator", _text(64), nullable=False),
    Column("reason", _text(255), nullable=False),
    Column("removed_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

frozen_boards = Table(
    "frozen_boards",
    metadata,
    Column("period", _ascii(8), primary_key=True),
    Column("game_type", _ascii(32), primary_key=True, comment="empty for all games"),
    Column("players", Integer, nullable=False),
    Column("frozen_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

frozen_places = Table(
    "frozen_places",
    metadata,
    Column("period", _ascii(8), primary_key=True),
    Column("game_type", _ascii(32), primary_key=True, comment="empty for all games"),
    Column("place", Integer, primary_key=True, autoincrement=False, comment="from 1, no two alike"),
    Column("rank", Integer, nullable=False, comment="from 1, the same for equal scores"),
    Column("user_id", _ascii(32), nullable=False),
    Column("score", BigInteger, nullable=False),
    UniqueConstraint("period", "game_type", "user_id"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

friends = Table(
    "friends",
    metadata,
    Column("user_id", _ascii(32), ForeignKey(users.c.user_id), primary_key=True),
    Column("friend_id", _ascii(32), ForeignKey(users.c.user_id), primary_key=True, index=True),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

game_sessions = Table(
    "game_sessions",
    metadata,
    Column("session_id", _ascii(64), primary_key=True),
    Column("difficulty", _ascii(16), nullable=False),
    Column("level", Integer, nullable=False),
    Column("region", _ascii(32), nullable=False, comment="empty where nobody has one"),
    Column("cost", Double(), nullable=False, comment="how unequal its players were, in levels"),
    Column("players", _ascii(512), nullable=False, comment="user ids, the one who waited longest first"),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    Column("finished_at", BigInteger, nullable=True, index=True, comment="ms since the epoch"),
    Column("finish_id", _text(128), nullable=True, comment="the request that finished it"),
    Column("game_type", _ascii(32), nullable=True),
    Column("results", _ascii(1024), nullable=True, comment="JSON: user ids and scores"),
    Column("announced_at", BigInteger, nullable=True, comment="ms since the epoch, on the event bus"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

skills = Table(
    "skills",
    metadata,
    Column("user_id", _ascii(32), primary_key=True),
    Column("difficulty", _ascii(16), primary_key=True),
    Column("mu", Double(), nullable=False, comment="the skill that is most likely"),
    Column("sigma", Double(), nullable=False, comment="how uncertain that is"),
    Column("games", Integer, nullable=False),
    Column("updated_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

policies = Table(
    "policies",
    metadata,
    Column("policy_id", _ascii(64), primary_key=True),
    Column("policy_name", _text(64), nullable=False),
    Column("description", _text(255), nullable=False),
    Column(
        "rules", _long_text(), nullable=False, comment="JSON: action, resource, condition, effect of each"
    ),
    Column("updated_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

audit_logs = Table(
    "audit_logs",
    metadata,
    Column(
        "audit_id", _ascii(40), primary_key=True, comment="of the stream that it came by: its ms, -, a number"
    ),
    Column("at", BigInteger, nullable=False, comment="ms since the epoch"),
    Column("who", _text(128), nullable=False, comment="a user id, or an operator's login name; escaped"),
    Column("action", _text(255), nullable=False, comment="escaped"),
    Column("resource", _text(512), nullable=False, comment="escaped"),
    Column("result", _ascii(16), nullable=False, comment="ALLOWED or DENIED"),
    Column("policy", _text(64), nullable=False, comment="the policy that decided, - for none"),
    Column("reason", _text(512), nullable=False, comment="escaped"),
    Index("ix_audit_logs_who_at", "who", "at"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)


portal_tasks = Table(
    "portal_tasks",
    metadata,
    Column("task_id", _ascii(96), primary_key=True),
    Column("user_id", _ascii(32), nullable=False),
    Column("task_type", _ascii(32), nullable=False),
    Column("status", _ascii(16), nullable=False),
    Column("priority", _ascii(8), nullable=False),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    Column("finished_at", BigInteger, comment="ms since the epoch"),
    Column("message", _bytes(), comment="the input, msgpack; none once it is not needed any more"),
    Column("result", _bytes(), comment="JSON"),
    Column("error", _text(512)),
    Index("ix_portal_tasks_status_created_at", "status", "created_at"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

portal_files = Table(
    "portal_files",
    metadata,
    Column("file_id", _ascii(96), primary_key=True, comment="the task that brought it"),
    Column("user_id", _ascii(32), nullable=False, index=True),
    Column("file_name", _text(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", _ascii(64)),
    Column("content_type", _ascii(128)),
    Column("stored_at", BigInteger, comment="ms since the epoch; none while it is being uploaded"),
    Column("created_at", BigInteger, nullable=False, comment="ms since the epoch"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)

notifications = Table(
    "notifications",
    metadata,
    Column("user_id", _ascii(32), primary_key=True, comment="who is told"),
    Column("task_id", _ascii(96), primary_key=True, comment="the task that tells it"),
    Column("sender", _ascii(32), nullable=False),
    Column("message", _text(2000), nullable=False),
    Column("sent_at", BigInteger, nullable=False, comment="ms since the epoch"),
    Column("read_at", BigInteger, comment="ms since the epoch; none until it is read"),
    Index("ix_notifications_user_id_read_at", "user_id", "read_at"),
    mysql_engine="InnoDB",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)
