"""Making accounts: `auth.register`."""

from typing import NoReturn

from protocol.errors import EMAIL_TAKEN, TOO_MANY_ATTEMPTS, USERNAME_TAKEN, ErrorKind, RequestError
from protocol.messages.auth import Register, Registered
from storage.servers import now_ms
from storage.users import Added, EmailTaken, NewUser, User, UsernameTaken, fold
from workers.login.room import LoginRoom, handlers
from workers.requests import Call

FOUND_TAKEN = "Too many names and emails that are taken were asked for from your address."


@handlers.handles(Register)
async def register(room: LoginRoom, call: Call[Register]) -> Registered:
    """Make the account, once for all repeats of the request."""
    data, envelope = call.data, call.envelope
    user_id = fold(data.username)
    registration_id = f"key:{envelope.key}" if envelope.key else envelope.trace_id
    room.hashing.refuse_when_full(envelope.peer)
    address = room.origins.address(envelope.peer)
    wait_ms = await room.refused_registrations.wait_ms(address)
    if wait_ms:
        raise RequestError(TOO_MANY_ATTEMPTS, FOUND_TAKEN, wait_ms)
    taken = await room.users.taken(user_id, data.email)
    if taken is not None:
        if await _is_repeat(room, call, await room.users.registered(user_id, registration_id)):
            return Registered(user_id=user_id)
        await _refuse(room, address, USERNAME_TAKEN if taken == "username" else EMAIL_TAKEN)
    wait_ms = await room.registrations.count(address)
    if wait_ms:
        raise RequestError(TOO_MANY_ATTEMPTS, "Too many accounts were made from your address.", wait_ms)
    try:
        added = await _add(room, call, user_id, registration_id)
    except (UsernameTaken, EmailTaken) as error:
        await room.registrations.forgive(address)
        await _refuse(room, address, USERNAME_TAKEN if isinstance(error, UsernameTaken) else EMAIL_TAKEN)
    except BaseException:
        await room.registrations.forgive(address)
        raise
    if not added.created:
        await room.registrations.forgive(address)
        if not await _is_repeat(room, call, added.user):
            await _refuse(room, address, USERNAME_TAKEN)
    return Registered(user_id=user_id)


async def _add(room: LoginRoom, call: Call[Register], user_id: str, registration_id: str) -> Added:
    data, envelope = call.data, call.envelope
    new = NewUser(
        user_id=user_id,
        email=data.email,
        nickname=data.nickname,
        password_hash=await room.hashing.hash(data.password, envelope.deadline_ms, envelope.peer),
        registration_id=registration_id,
        created_at=now_ms(),
    )
    return await room.users.add(new)


async def _refuse(room: LoginRoom, address: str, kind: ErrorKind) -> NoReturn:
    """Say what is taken, so many times to one address that no list of accounts comes of it."""
    wait_ms = await room.refused_registrations.count(address)
    if wait_ms:
        raise RequestError(TOO_MANY_ATTEMPTS, FOUND_TAKEN, wait_ms)
    raise RequestError(kind)


async def _is_repeat(room: LoginRoom, call: Call[Register], earlier: User | None) -> bool:
    """Whether this request made that account before: the same key is not enough, anybody may send it."""
    if earlier is None:
        return False
    envelope = call.envelope
    return await room.hashing.check(
        call.data.password, earlier.password_hash, envelope.deadline_ms, envelope.peer
    )
