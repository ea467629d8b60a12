"""Policies that a migration brings along."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from alembic import op
from sqlalchemy import BigInteger, String, Text, column, select, table

_POLICIES = table(
    "policies",
    column("policy_id", String),
    column("policy_name", String),
    column("description", String),
    column("rules", Text),
    column("updated_at", BigInteger),
)
"""The columns as they are from 0006 on, whatever becomes of the table later."""


def insert_missing(policies: Sequence[Mapping[str, Any]]) -> None:
    """Insert those policies whose ids are not there: what operators made of one stays."""
    present = set(op.get_bind().scalars(select(_POLICIES.c.policy_id)))
    now_ms = int(time.time() * 1000)
    op.bulk_insert(
        _POLICIES,
        [
            {**policy, "rules": json.dumps(policy["rules"], ensure_ascii=False), "updated_at": now_ms}
            for policy in policies
            if policy["policy_id"] not in present
        ],
    )
