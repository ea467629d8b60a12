"""Tasks of the portal, the files that they bring, and notifications."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, PrimaryKeyConstraint, String
from sqlalchemy.dialects.mysql import LONGBLOB, VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"

_OPTIONS: dict[str, Any] = {
    "if_not_exists": True,
    "mysql_engine": "InnoDB",
    "mysql_default_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_nopad_bin",
}


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def _bytes() -> TypeEngine[bytes]:
    return LargeBinary().with_variant(LONGBLOB(), "mysql")


def upgrade() -> None:
    op.create_table(
        "portal_tasks",
        Column("task_id", _ascii(96), nullable=False),
        Column("user_id", _ascii(32), nullable=False),
        Column("task_type", _ascii(32), nullable=False),
        Column("status", _ascii(16), nullable=False),
        Column("priority", _ascii(8), nullable=False),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        Column("finished_at", BigInteger(), comment="ms since the epoch"),
        Column("message", _bytes(), comment="the input, msgpack; none once it is not needed any more"),
        Column("result", _bytes(), comment="JSON"),
        Column("error", _text(512)),
        PrimaryKeyConstraint("task_id", name="pk_portal_tasks"),
        **_OPTIONS,
    )
    op.create_index(
        "ix_portal_tasks_status_created_at", "portal_tasks", ["status", "created_at"], if_not_exists=True
    )
    op.create_table(
        "portal_files",
        Column("file_id", _ascii(96), nullable=False, comment="the task that brought it"),
        Column("user_id", _ascii(32), nullable=False),
        Column("file_name", _text(255), nullable=False),
        Column("size_bytes", BigInteger(), nullable=False),
        Column("sha256", _ascii(64)),
        Column("content_type", _ascii(128)),
        Column("stored_at", BigInteger(), comment="ms since the epoch; none while it is being uploaded"),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("file_id", name="pk_portal_files"),
        **_OPTIONS,
    )
    op.create_index("ix_portal_files_user_id", "portal_files", ["user_id"], if_not_exists=True)
    op.create_table(
        "notifications",
        Column("user_id", _ascii(32), nullable=False, comment="who is told"),
        Column("task_id", _ascii(96), nullable=False, comment="the task that tells it"),
        Column("sender", _ascii(32), nullable=False),
        Column("message", _text(2000), nullable=False),
        Column("sent_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        Column("read_at", BigInteger(), comment="ms since the epoch; none until it is read"),
        PrimaryKeyConstraint("user_id", "task_id", name="pk_notifications"),
        **_OPTIONS,
    )
    op.create_index(
        "ix_notifications_user_id_read_at", "notifications", ["user_id", "read_at"], if_not_exists=True
    )
