"""Policies, with those that lobbyd's own gates go by, and the audit log."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

from storage.migrations.default_policies import insert_missing

revision = "0006"
down_revision = "0005"

# What bearing ADMIN or GAME_SERVER is good for is declared with each request; who bears them is decided here.
_DEFAULTS = (
    {
        "policy_id": "queue-priority",
        "policy_name": "Queue Access Policy",
        "description": "큐 접근 정책: who goes before others in the waiting room",
        "rules": [
            {
                "action": "queue:priority",
                "resource": "queue:portal:VIP",
                "condition": 'user.role == "VIP"'
                ' || ("queue_priority" in user.permissions && "VIP_Users" in user.groups)',
            },
            {
                "action": "queue:priority",
                "resource": "queue:portal:PREMIUM",
                "condition": 'user.role == "PREMIUM" || "queue_priority" in user.permissions',
            },
        ],
    },
    {
        "policy_id": "roles",
        "policy_name": "Role Policy",
        "description": "역할 정책: which roles a session bears, ADMIN and GAME_SERVER too",
        "rules": [
            {"action": "role:bear", "resource": "role:*", "condition": 'resource == "role:" + user.role'},
        ],
    },
    {
        "policy_id": "iam-read",
        "policy_name": "Permission Reading Policy",
        "description": "권한 조회 정책: who may read policies, and their own groups",
        "rules": [
            {"action": "iam:read", "resource": "iam:groups"},
            {"action": "iam:read", "resource": "iam:policies"},
        ],
    },
)


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def _long_text() -> TypeEngine[str]:
    return Text().with_variant(MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "policies",
        Column("policy_id", _ascii(64), nullable=False),
        Column("policy_name", _text(64), nullable=False),
        Column("description", _text(255), nullable=False),
        Column(
            "rules", _long_text(), nullable=False, comment="JSON: action, resource, condition, effect of each"
        ),
        Column("updated_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("policy_id", name="pk_policies"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_table(
        "audit_logs",
        Column(
            "audit_id",
            _ascii(40),
            nullable=False,
            comment="of the stream that it came by: its ms, -, a number",
        ),
        Column("at", BigInteger(), nullable=False, comment="ms since the epoch"),
        Column("who", _text(128), nullable=False, comment="a user id, or an operator's login name; escaped"),
        Column("action", _text(255), nullable=False, comment="escaped"),
        Column("resource", _text(512), nullable=False, comment="escaped"),
        Column("result", _ascii(16), nullable=False, comment="ALLOWED or DENIED"),
        Column("policy", _text(64), nullable=False, comment="the policy that decided, - for none"),
        Column("reason", _text(512), nullable=False, comment="escaped"),
        PrimaryKeyConstraint("audit_id", name="pk_audit_logs"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_index("ix_audit_logs_who_at", "audit_logs", ["who", "at"], if_not_exists=True)
    insert_missing(_DEFAULTS)
