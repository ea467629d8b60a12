"""What the tests of sessions are made of: tokens of families, and what Redis holds of one user's stay."""

from protocol.envelope import Address
from storage import keys
from storage.sessions import (
    NextToken,
    Rights,
)
from tests.storage.room import RIGHTS, Room


def token(family: str, number: int) -> NextToken:
    """What is stored of a family's token, made up but the same for the same facts."""
    return NextToken(family, number, f"{family.encode().hex()}{number:04x}")


async def session(room: Room) -> dict[str, str]:
    fields = await room.redis.execute_command("HGETALL", keys.session("ada"))
    return {name.decode(): value.decode() for name, value in fields.items()}


async def families(room: Room) -> list[str]:
    names = await room.redis.execute_command("HKEYS", keys.refresh_tokens("ada"))
    return sorted(name.decode().removeprefix("family:") for name in names if name.startswith(b"family:"))


async def owner(room: Room) -> Address | None:
    fields = await session(room)
    return Address(fields["serverId"], int(fields["connectionId"])) if "serverId" in fields else None


async def rotate(room: Room, family: str, number: int, rights: Rights = RIGHTS) -> tuple[int, int]:
    next_hash = token(family, number + 1).hash
    return await room.sessions.rotate(
        "ada", token(family, number), next_hash, await room.now_ms(), room.record(), rights
    )


async def check(room: Room, token: NextToken) -> None:
    await room.sessions.check("ada", token, room.record())
