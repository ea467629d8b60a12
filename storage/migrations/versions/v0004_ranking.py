"""Scores, the best of them, boards of the past, and friends."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    String,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    op.create_table(
        "scores",
        Column("task_id", _ascii(96), nullable=False, comment="begins with the ms of submission"),
        Column("user_id", _ascii(32), nullable=False),
        Column("game_type", _ascii(32), nullable=False),
        Column("difficulty", _ascii(16), nullable=False),
        Column("score", BigInteger(), nullable=False),
        Column("game_session_id", _ascii(64), nullable=True),
        Column("submitted_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("task_id", name="pk_scores"),
        UniqueConstraint("game_session_id", "user_id", name="uq_scores_game_session_id_user_id"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_table(
        "best_scores",
        Column("period", _ascii(8), nullable=False, comment="all, or a day such as 20241218"),
        Column("game_type", _ascii(32), nullable=False),
        Column("user_id", _ascii(32), nullable=False),
        Column("score", BigInteger(), nullable=False),
        Column("reached_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("period", "game_type", "user_id", name="pk_best_scores"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_table(
        "ranking_removals",
        Column("user_id", _ascii(32), nullable=False, comment="whose scores count no more"),
        Column("operator", _text(64), nullable=False),
        Column("reason", _text(255), nullable=False),
        Column("removed_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("user_id", name="pk_ranking_removals"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    _create_frozen_boards()
    op.create_table(
        "friends",
        Column("user_id", _ascii(32), nullable=False),
        Column("friend_id", _ascii(32), nullable=False),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("user_id", "friend_id", name="pk_friends"),
        ForeignKeyConstraint(["user_id"], ["users.user_id"], name="fk_friends_user_id"),
        ForeignKeyConstraint(["friend_id"], ["users.user_id"], name="fk_friends_friend_id"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_index("ix_friends_friend_id", "friends", ["friend_id"], if_not_exists=True)


def _create_frozen_boards() -> None:
    op.create_table(
        "frozen_boards",
        Column("period", _ascii(8), nullable=False),
        Column("game_type", _ascii(32), nullable=False, comment="empty for all games"),
        Column("players", Integer(), nullable=False),
        Column("frozen_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        PrimaryKeyConstraint("period", "game_type", name="pk_frozen_boards"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
    op.create_table(
        "frozen_places",
        Column("period", _ascii(8), nullable=False),
        Column("game_type", _ascii(32), nullable=False, comment="empty for all games"),
        Column("place", Integer(), nullable=False, comment="from 1, no two alike"),
        Column("rank", Integer(), nullable=False, comment="from 1, the same for equal scores"),
        Column("user_id", _ascii(32), nullable=False),
        Column("score", BigInteger(), nullable=False),
        PrimaryKeyConstraint("period", "game_type", "place", name="pk_frozen_places"),
        UniqueConstraint("period", "game_type", "user_id", name="uq_frozen_places_period_game_type_user_id"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
