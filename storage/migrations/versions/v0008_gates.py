"""The policy that says who may send what not everybody may, act for others, and write to groups and by email.

Before, the names of the roles were compared in code.
"""

import json
import time

from alembic import op
from sqlalchemy import BigInteger, String, Text, column, select, table

revision = "0008"
down_revision = "0007"

_BY_TRUST = '"GAME_SERVER" in user.roles || "ADMIN" in user.roles'

_DEFAULT = {
    "policy_id": "gates",
    "policy_name": "Gate Policy",
    "description": "관문 정책: what the roles ADMIN and GAME_SERVER are good for",
    "rules": [
        {"action": "request:send", "resource": "request:game:finish", "condition": _BY_TRUST},
        {
            "action": "request:send",
            "resource": "request:monitor:subscribe",
            "condition": '"ADMIN" in user.roles',
        },
        {"action": "user:act_for", "resource": "request:*", "condition": _BY_TRUST},
        {"action": "notification:send", "resource": "notification:groups", "condition": _BY_TRUST},
        {"action": "notification:send", "resource": "notification:email", "condition": _BY_TRUST},
    ],
}


def upgrade() -> None:
    policies = table(
        "policies",
        column("policy_id", String),
        column("policy_name", String),
        column("description", String),
        column("rules", Text),
        column("updated_at", BigInteger),
    )
    if _DEFAULT["policy_id"] in set(op.get_bind().scalars(select(policies.c.policy_id))):
        return
    rules = json.dumps(_DEFAULT["rules"], ensure_ascii=False)
    op.bulk_insert(policies, [{**_DEFAULT, "rules": rules, "updated_at": int(time.time() * 1000)}])
