"""Sessions of play, and what is known of players' skill."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Integer, PrimaryKeyConstraint, String
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    op.create_table(
        "game_sessions",
        Column("session_id", _ascii(64), nullable=False),
        Column("difficulty", _ascii(16), nullable=False),
        Column("level", Integer(), nullable=False),
        Column("region", _ascii(32), nullable=False, comment="empty where nobody has one"),
        Column("cost", Double(), nullable=False, comment="how unequal its players were, in levels"),
        Column("players", _ascii(512), nullable=False, comment="user ids, the one who waited longest first"),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        Column("finished_at", BigInteger(), nullable=True, comment="ms since the epoch"),
        Column("finish_id", _text(128), nullable=True, comment="the request that finished it"),
        Column("game_type", _ascii(32), nullable=True),
        Column("results", _ascii(1024), nullable=True, comment="JSON: user ids and scores"),
        Column("announced_at", BigInteger(), nullable=True, comment="ms since the epoch, on the event bus"),
        PrimaryKeyConstraint("session_id", name="pk_game_sessions"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_index("ix_game_sessions_finished_at", "game_sessions", ["finished_at"], if_not_exists=True)
    op.create_table(
        "skills",
        Column("user_id", _ascii(32), nullable=False),
        Column("difficulty", _ascii(16), nullable=False),
        Column("mu", Double(), nullable=False, comment="the skill that is most likely"),
        Column("sigma", Double(), nullable=False, comment="how uncertain that is"),
        Column("games", Integer(), nullable=False),
        Column("updated_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("user_id", "difficulty", name="pk_skills"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
