"""The policy that says who may send what not everybody may, act for others, and write to groups and by email.

Before, the names of the roles were compared in code.
"""

from storage.migrations.default_policies import insert_missing

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
    insert_missing([_DEFAULT])
