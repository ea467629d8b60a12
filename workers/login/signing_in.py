"""From a password or a token to a signed-in connection, and out again."""

from dataclasses import dataclass

from msgspec import UNSET

from protocol.envelope import Address, Delivery, SignIn, SignOut
from protocol.errors import (
    ACCOUNT_DISABLED,
    BUSY,
    BUSY_RETRY_MS,
    INVALID_TICKET,
    INVALID_TOKEN,
    TICKET_NOT_FOUND,
    TOKEN_REUSED,
    RequestError,
)
from protocol.kicking import kick
from protocol.messages import Nothing
from protocol.messages.auth import (
    Finalize,
    Finalized,
    LoggedIn,
    Login,
    Logout,
    Refresh,
    Resume,
    Resumed,
    TokenPair,
)
from storage.audit import WhenFull
from storage.errors import StoreAway
from storage.permissions import entry
from storage.queues import Busy
from storage.servers import now_ms
from storage.sessions import NextToken, NotReady, NotYours, Reused, Revoked, Stale
from storage.tickets import RoomFull, TicketNotFound, Tier
from storage.users import AccountStatus, User, fold
from workers.login.entering import announcement, entrance
from workers.login.permissions import rights
from workers.login.room import LoginRoom, asker, handlers
from workers.login.survey import told_s
from workers.login.tiers import QUESTIONS, tier_of
from workers.login.tokens import BadToken, names, new_family
from workers.requests import Answer, Call, record
from workers.standing import match_state


@dataclass(frozen=True, slots=True)
class Proven:
    """Who has proven to be this user, at which risk.

    `family` is that of the refresh token, "" for a password; `scope` is what the login's key belongs to.
    """

    user: User
    family: str
    scope: str
    risk: float


@handlers.handles(Login)
async def log_in(room: LoginRoom, call: Call[Login]) -> Answer:
    """Check who it is, then give out a ticket, or hand over the one that the user has."""
    try:
        proven = await (_by_password if call.data.refresh_token is None else _by_token)(room, call)
    except Reused as reused:
        return _refuse_reused(reused)
    user = proven.user
    _refuse_disabled(user)
    names_to_be = room.identifiers.ticket(), room.identifiers.client()
    tier = await _tier(room, user)
    most = room.config.login.max_queue_length
    try:
        place = await room.tickets.issue(
            names_to_be,
            user.user_id,
            asker(call),
            entrance(call, proven.family, proven.risk),
            most,
            record(call, proven.scope),
            tier,
        )
    except RoomFull as error:
        raise await room.overflow.refusal(error) from None
    room.admission.wake()
    reply = LoggedIn(
        tid=place.tid,
        client_id=place.client_id,
        queue_type="portal",
        status=place.status,
        position=place.position,
        total_waiting=place.total_waiting,
        estimated_wait_sec=told_s(place.wait_s),
        opens_at=place.opens_at or UNSET,
    )
    return Answer(reply, also=kick(place.kicked))


async def _tier(room: LoginRoom, user: User) -> Tier:
    """The player's tier. One that goes before others is written down; who has none was refused nothing."""
    rulebook = await room.policies.recent()
    facts = rulebook.facts(user.user_id, user.role, await room.groups.of(user.user_id))
    tier, decision = tier_of(rulebook, facts)
    if decision is not None:
        await room.audit.append([entry(user.user_id, QUESTIONS[tier], decision)], WhenFull.COUNT)
    return tier


async def _by_password(room: LoginRoom, call: Call[Login]) -> Proven:
    data, envelope = call.data, call.envelope
    user_id = fold(data.username or "")
    await room.overflow.refuse_early(user_id)
    room.hashing.refuse_when_full(envelope.peer)
    origin = room.origins.of(user_id, envelope.peer, data.client_fingerprint)
    await room.caution.consider(user_id, origin)
    user, from_sql = await room.users.look_up(user_id)
    password_hash = user.password_hash if user is not None else None
    right = await room.hashing.check(data.password or "", password_hash, envelope.deadline_ms, envelope.peer)
    if user is None or not right:
        if not from_sql:
            await room.users.read_again(user_id)
        await room.caution.refuse(user_id, origin)
    return Proven(user, "", user_id, await room.caution.welcome(user_id, origin, by_password=True))


async def _by_token(room: LoginRoom, call: Call[Login]) -> Proven:
    user_id, token = _read_refresh(room, call.data.refresh_token or "")
    await room.overflow.refuse_early(user_id)
    scope = f"{user_id}\n{token.hash}"
    try:
        await room.sessions.check(user_id, token, record(call, scope))
    except Revoked:
        raise RequestError(INVALID_TOKEN) from None
    user = await room.users.get(user_id)
    if user is None:
        raise RequestError(INVALID_TOKEN)
    origin = room.origins.of(user_id, call.envelope.peer, call.data.client_fingerprint)
    risk = await room.caution.welcome(user_id, origin, by_password=False)
    return Proven(user, token.family, scope, risk)


@handlers.handles(Finalize)
async def finalize(room: LoginRoom, call: Call[Finalize]) -> Answer:
    """Spend a READY ticket: one token pair, whatever races for it."""
    tid, client_id = call.data.tid, call.data.client_id
    holder = await room.tickets.holder(tid) if room.identifiers.is_ticket(tid) else None
    user = await room.users.get(holder.user_id) if holder is not None else None
    if holder is None or user is None:
        raise RequestError(TICKET_NOT_FOUND)
    _refuse_disabled(user)
    user_id, family = holder.user_id, holder.entrance.family
    number = await room.sessions.newest(user_id, family) if family else None
    going_on = room.tokens.next_refresh(user_id, family, number + 1) if number is not None else None
    fresh = room.tokens.next_refresh(user_id, new_family(), 1)
    allowed = await rights(room, user)
    try:
        signed_in = await room.sessions.finalize(
            (tid, client_id, user_id),
            asker(call),
            allowed,
            (going_on, fresh),
            now_ms(),
            record(call, f"{tid}\n{client_id}"),
            announcement(tid, holder),
        )
    except TicketNotFound:
        raise RequestError(TICKET_NOT_FOUND) from None
    except NotReady:
        raise RequestError(INVALID_TICKET, "This ticket is not READY yet.") from None
    except NotYours:
        raise RequestError(INVALID_TICKET, "This ticket belongs to another clientId of yours.") from None
    except Busy as error:
        raise RequestError(BUSY, str(error), BUSY_RETRY_MS) from None
    token = NextToken(signed_in.family, signed_in.number, "")
    reply = Finalized(
        access_token=room.tokens.access(user_id, token, allowed, signed_in.issued_ms),
        refresh_token=room.tokens.refresh(user_id, token.family, token.number),
        expires_in=room.tokens.access_ttl_s,
        user_id=user_id,
    )
    return Answer(reply, SignIn(user_id, holder.entrance.trace), kick(signed_in.kicked, user_id))


@handlers.handles(Resume)
async def resume(room: LoginRoom, call: Call[Resume]) -> Answer:
    """Sign a connection in by access token; one that was signed in before is kicked out."""
    try:
        access = room.tokens.read_access(call.data.access_token)
    except BadToken:
        raise RequestError(INVALID_TOKEN) from None
    user = await room.users.get(access.user_id)
    if user is None:
        raise RequestError(INVALID_TOKEN)
    _refuse_disabled(user)
    allowed = await rights(room, user)
    roles = [role for role in access.roles if role in names(allowed.role)]
    trace = ""
    try:
        kicked, trace = await room.sessions.resume(access.user_id, access.family, asker(call))
    except Revoked:
        raise RequestError(INVALID_TOKEN) from None
    except Stale:
        kicked = call.envelope.origin
    standing = await room.board.standing(access.user_id)
    reply = Resumed(
        user_id=access.user_id,
        roles=roles,
        permissions=names(allowed.permissions),
        expires_in=max(0, access.expires_s - now_ms() // 1000),
        match=None if standing is None else match_state(standing),
        tasks=await room.tasks.of(access.user_id),
        unread_notifications=await _unread(room, access.user_id),
    )
    return Answer(reply, SignIn(access.user_id, trace), kick(kicked, access.user_id))


@handlers.handles(Refresh)
async def refresh(room: LoginRoom, call: Call[Refresh]) -> TokenPair | Answer:
    """Exchange a refresh token; using one twice revokes its family."""
    user_id, token = _read_refresh(room, call.data.refresh_token)
    user = await room.users.get(user_id)
    if user is None:
        raise RequestError(INVALID_TOKEN)
    _refuse_disabled(user)
    following = room.tokens.next_refresh(user_id, token.family, token.number + 1)
    allowed = await rights(room, user)
    try:
        number, issued_ms = await room.sessions.rotate(
            user_id, token, following.hash, now_ms(), record(call, token.hash), allowed
        )
    except Revoked:
        raise RequestError(INVALID_TOKEN) from None
    except Reused as reused:
        return _refuse_reused(reused)
    new = NextToken(token.family, number, "")
    return TokenPair(
        access_token=room.tokens.access(user_id, new, allowed, issued_ms),
        refresh_token=room.tokens.refresh(user_id, token.family, number),
        expires_in=room.tokens.access_ttl_s,
    )


@handlers.handles(Logout)
async def log_out(room: LoginRoom, call: Call[Logout]) -> Answer:
    """End the stay: the family is revoked, and the connection that it signed in is nobody's."""
    user_id, token = _read_refresh(room, call.data.refresh_token)
    try:
        signed_out = await room.sessions.revoke(user_id, token.family, record(call, token.hash))
    except Revoked:
        raise RequestError(INVALID_TOKEN) from None
    return Answer(Nothing(), also=_sign_out(signed_out, user_id))


def _refuse_reused(reused: Reused) -> Answer:
    """The family is revoked: the connection that it signed in is nobody's."""
    return Answer(RequestError(TOKEN_REUSED), also=_sign_out(reused.signed_out, reused.user_id))


def _sign_out(address: Address | None, user_id: str) -> tuple[tuple[Address, Delivery], ...]:
    if address is None:
        return ()
    return ((address, Delivery(address.connection_id, b"", change=SignOut(user_id))),)


async def _unread(room: LoginRoom, user_id: str) -> int | None:
    """How many notifications the user has not read; who resumes must not wait for the database to be back."""
    try:
        return await room.notifications.unread(user_id)
    except StoreAway:
        return None


def _read_refresh(room: LoginRoom, token: str) -> tuple[str, NextToken]:
    try:
        return room.tokens.read_refresh(token)
    except BadToken:
        raise RequestError(INVALID_TOKEN) from None


def _refuse_disabled(user: User) -> None:
    if user.status is not AccountStatus.ACTIVE:
        raise RequestError(ACCOUNT_DISABLED)
