"""The kind `notification`: tells users something, in the game or by email.

Result: `{sentCount, failedCount, failed: [{userId, reason}]}`, of the failed at most a hundred. Who was told
is kept with the task's id, so that a task which is done again tells nobody twice; by email only the one whose
mail the server took just as the worker died, and that mail has the same Message-ID.
"""

from collections.abc import AsyncIterator, Sequence

import msgspec

from protocol.messages.portal import Channel, Notification
from storage.notifications import BATCH
from storage.users import User, fold
from workers.portal.email import Mailer
from workers.portal.kinds import Context, Limits, Refused
from workers.portal.room import PortalRoom, kinds

MOST_FAILED = 100
MAILS_AT_ONCE = 20
"""So many go through one connection to the mail server."""

NO_ACCOUNT = "no such user"
NO_MEMBERS = "no such group, or nobody in it"


class Notify(msgspec.Struct, frozen=True):
    """Who says what to whom, and when it was said, in ms since the epoch."""

    sender: str
    message: str
    recipients: tuple[str, ...]
    groups: tuple[str, ...]
    channel: Channel
    sent_at: int


class _Tally:
    def __init__(self) -> None:
        self.sent = self.failed = 0
        self.failures: list[dict[str, str]] = []

    def fail(self, user_id: str, reason: str) -> None:
        self.failed += 1
        if len(self.failures) < MOST_FAILED:
            self.failures.append({"userId": user_id, "reason": reason})


@kinds.kind("notification", Notify, Limits(concurrency=8, time_limit_s=600))
async def notify(context: Context[PortalRoom], notice: Notify) -> dict[str, object]:
    """Tell everybody, batch by batch."""
    tally, batches = _Tally(), 0
    reach = _by_email if notice.channel is Channel.EMAIL else _in_game
    async for batch in _recipients(context, notice, tally):
        existing = await context.room.notifications.existing(batch)
        for user_id in batch:
            if user_id not in existing:
                tally.fail(user_id, NO_ACCOUNT)
        await reach(context, notice, sorted(existing), tally)
        batches += 1
        context.progress(99 - 99 / (batches + 1))
    return {"sentCount": tally.sent, "failedCount": tally.failed, "failed": tally.failures}


async def _recipients(
    context: Context[PortalRoom], notice: Notify, tally: _Tally
) -> AsyncIterator[Sequence[str]]:
    """All who are to be told, each once, in batches."""
    named = list(dict.fromkeys(map(fold, notice.recipients)))
    seen = set(named)
    for start in range(0, len(named), BATCH):
        yield named[start : start + BATCH]
    for group_id in notice.groups:
        last = ""
        while members := await context.room.notifications.members(group_id, last):
            last = members[-1]
            fresh = [user_id for user_id in members if user_id not in seen]
            seen.update(fresh)
            yield fresh
        if not last:
            tally.fail(group_id, NO_MEMBERS)


async def _in_game(
    context: Context[PortalRoom], notice: Notify, user_ids: Sequence[str], tally: _Tally
) -> None:
    """Keep it for all of them, and tell those who are there."""
    room = context.room
    new = await room.notifications.keep(
        context.task_id, notice.sender, notice.message, notice.sent_at, user_ids
    )
    event = Notification(
        id=context.task_id, message=notice.message, from_=notice.sender, sent_at=notice.sent_at
    )
    room.telling.tell_each([(user_id, event) for user_id in sorted(new)])
    tally.sent += len(user_ids)


async def _by_email(
    context: Context[PortalRoom], notice: Notify, user_ids: Sequence[str], tally: _Tally
) -> None:
    settings = context.room.config.portal
    if not settings.smtp_url:
        raise Refused("Email is not set up here.")
    mailer = Mailer(settings.smtp_url, settings.smtp_sender)
    told = await context.room.notifications.kept(context.task_id, user_ids)
    tally.sent += len(told)
    left = [user_id for user_id in user_ids if user_id not in told]
    for start in range(0, len(left), MAILS_AT_ONCE):
        found = [await context.room.users.get(user_id) for user_id in left[start : start + MAILS_AT_ONCE]]
        await _mail(context, notice, mailer, [user for user in found if user is not None], tally)


async def _mail(
    context: Context[PortalRoom], notice: Notify, mailer: Mailer, users: Sequence[User], tally: _Tally
) -> None:
    """Send to some, and note of each that it was sent before the next is: one at most is sent again."""
    async for user, refusal in mailer.send(context.task_id, notice.sender, notice.message, users):
        if refusal is not None:
            tally.fail(user.user_id, refusal)
            continue
        await context.room.notifications.keep(
            context.task_id, notice.sender, notice.message, notice.sent_at, [user.user_id], is_read=True
        )
        tally.sent += 1
