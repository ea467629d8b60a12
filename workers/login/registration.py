"""Making accounts: `auth.register`."""

from protocol.errors import EMAIL_TAKEN, TOO_MANY_ATTEMPTS, USERNAME_TAKEN, RequestError
from protocol.messages.auth import Register, Registered
from runtime.secrets import Purpose
from storage.servers import now_ms
from storage.users import Added, EmailTaken, NewUser, User, UsernameTaken, fold
from workers.login.room import LoginRoom, handlers
from workers.requests import Call


@handlers.handles(Register)
async def register(room: LoginRoom, call: Call[Register]) -> Registered:
    """Make the account, once for all repeats of the request."""
    data, envelope = call.data, call.envelope
    user_id = fold(data.username)
    registration_id = f"key:{envelope.key}" if envelope.key else envelope.trace_id
    taken = await room.users.taken(user_id, data.email)
    if taken is not None:
        if await _is_repeat(room, call, await room.users.registered(user_id, registration_id)):
            return Registered(user_id=user_id)
        raise RequestError(USERNAME_TAKEN if taken == "username" else EMAIL_TAKEN)
    address = room.secrets.keyed_hash(Purpose.ADDRESS, envelope.peer)
    wait_ms = await room.registrations.count(address)
    if wait_ms:
        raise RequestError(TOO_MANY_ATTEMPTS, "Too many accounts were made from your address.", wait_ms)
    try:
        added = await _add(room, call, user_id, registration_id)
    except BaseException:
        await room.registrations.forgive(address)
        raise
    if not added.created:
        await room.registrations.forgive(address)
        if not await _is_repeat(room, call, added.user):
            raise RequestError(USERNAME_TAKEN)
    return Registered(user_id=user_id)


async def _add(room: LoginRoom, call: Call[Register], user_id: str, registration_id: str) -> Added:
    data, envelope = call.data, call.envelope
    new = NewUser(
        user_id=user_id,
        email=data.email,
        nickname=data.nickname,
        password_hash=await room.hashing.hash(data.password, envelope.deadline_ms),
        registration_id=registration_id,
        created_at=now_ms(),
    )
    try:
        return await room.users.add(new)
    except UsernameTaken:
        raise RequestError(USERNAME_TAKEN) from None
    except EmailTaken:
        raise RequestError(EMAIL_TAKEN) from None


async def _is_repeat(room: LoginRoom, call: Call[Register], earlier: User | None) -> bool:
    """Whether this request made that account before: the same key is not enough, anybody may send it."""
    if earlier is None:
        return False
    return await room.hashing.check(call.data.password, earlier.password_hash, call.envelope.deadline_ms)
