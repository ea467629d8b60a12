"""Accounts."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, String, UniqueConstraint
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    op.create_table(
        "users",
        Column("user_id", _ascii(32), nullable=False, comment="the folded username"),
        Column("email_hash", _ascii(64), nullable=False, comment="keyed hash of the folded address"),
        Column("email", _ascii(2048), nullable=False, comment="the address as given, encrypted"),
        Column("nickname", _text(32), nullable=False),
        Column("password_hash", _ascii(128), nullable=False, comment="bcrypt"),
        Column("role", _ascii(16), nullable=False, server_default="NORMAL"),
        Column("status", _ascii(16), nullable=False, server_default="ACTIVE", comment="ACTIVE or DISABLED"),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        Column("registration_id", _text(128), nullable=False, comment="the request that made the row"),
        PrimaryKeyConstraint("user_id", name="pk_users"),
        UniqueConstraint("email_hash", name="uq_users_email_hash"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
