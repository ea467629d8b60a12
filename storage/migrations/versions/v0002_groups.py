"""Groups of users and their members, with the two groups that the waiting room knows."""

import time

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, PrimaryKeyConstraint, String, Table, select
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"

# The first group is "VIP Users" with these permissions.
_DEFAULTS = (
    {
        "group_id": "VIP_Users",
        "group_name": "VIP Users",
        "description": "VIP 사용자 그룹",
        "permissions": "queue_priority,game_early_access",
    },
    {
        "group_id": "Premium_Users",
        "group_name": "Premium Users",
        "description": "Premium 사용자 그룹",
        "permissions": "queue_priority",
    },
)


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    groups = op.create_table(
        "groups",
        Column("group_id", _ascii(64), nullable=False),
        Column("group_name", _text(64), nullable=False),
        Column("description", _text(255), nullable=False),
        Column("permissions", _ascii(2048), nullable=False, comment="names, joined by commas"),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("group_id", name="pk_groups"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_table(
        "group_members",
        Column("group_id", _ascii(64), nullable=False),
        Column("user_id", _ascii(32), nullable=False),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("group_id", "user_id", name="pk_group_members"),
        ForeignKeyConstraint(["group_id"], ["groups.group_id"], name="fk_group_members_group_id"),
        ForeignKeyConstraint(["user_id"], ["users.user_id"], name="fk_group_members_user_id"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_index("ix_group_members_user_id", "group_members", ["user_id"], if_not_exists=True)
    _insert_defaults(groups)


def _insert_defaults(groups: Table) -> None:
    present = set(op.get_bind().scalars(select(groups.c.group_id)))
    now_ms = int(time.time() * 1000)
    missing = [group for group in _DEFAULTS if group["group_id"] not in present]
    op.bulk_insert(groups, [{**group, "created_at": now_ms} for group in missing])
