"""Which keys encrypt what is stored; the keys themselves are nowhere."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, UniqueConstraint
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0003"
down_revision = "0002"


def _ascii(length: int) -> TypeEngine[str]:
    return _exact(length, "ascii")


def _text(length: int) -> TypeEngine[str]:
    return _exact(length, "utf8mb4")


def _exact(length: int, charset: str) -> TypeEngine[str]:
    exact = VARCHAR(length, charset=charset, collation=f"{charset}_nopad_bin")
    return String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    op.create_table(
        "encryption_keys",
        Column(
            "number", Integer(), autoincrement=True, nullable=False, comment="the newest is the current one"
        ),
        Column("key_id", _ascii(32), nullable=False, comment="names the key, does not give it away"),
        Column("created_at", BigInteger(), nullable=False, comment="ms since the epoch"),
        Column("created_by", _text(64), nullable=False, comment="the operator, or lobbyd"),
        PrimaryKeyConstraint("number", name="pk_encryption_keys"),
        UniqueConstraint("key_id", name="uq_encryption_keys_key_id"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
