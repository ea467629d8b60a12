"""The policy that says whose urgent work lets its player go before others."""

from storage.migrations.default_policies import insert_missing

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
    insert_missing([_DEFAULT])
