"""The policy that says whose urgent work lets its player go before others."""

import json
import time

from alembic import op
from sqlalchemy import BigInteger, String, Text, column, select, table

revision = "0009"
down_revision = "0008"

# Not the players themselves: each would hand in urgent work to go before the others.
_DEFAULT = {
    "policy_id": "queue-raise",
    "policy_name": "Queue Raise Policy",
    "description": "포털 작업 우선순위 정책: whose urgent work raises its player in the waiting room",
    "rules": [
        {
            "action": "queue:raise",
            "resource": "queue:portal:PREMIUM",
            "condition": '"GAME_SERVER" in user.roles || "ADMIN" in user.roles',
        },
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
