"""The SQL tables, for MariaDB and SQLite alike. A change here needs a migration in `storage/migrations`.

Text compares byte by byte and trailing spaces count, on both databases. What only ASCII can be in,
above all keys, is stored as ASCII on MariaDB, which keeps its indexes small.
"""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, Table
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


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


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
