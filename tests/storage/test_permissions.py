"""Permissions: what is kept is good while all that it rests on is the same, under a name of its own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from sqlalchemy import update

from storage import keys
from storage.audit import MOST_PENDING, Arrears, Audit, AuditFull, WhenFull
from storage.group_catalogue import Definition, GroupCatalogue
from storage.permissions import MOST_KEPT_A_MINUTE, NO_ACCOUNT, Permissions
from storage.policies import Policies, PolicyWatch, Question
from storage.policies.rulebook import NOTHING_MATCHES
from storage.tables import users as users_table
from tests.storage.desk import JOIN, Desk, open_desk
from tests.storage.policies.making import allow, deny, policy


@pytest.fixture
async def desk(pair: tuple[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(*pair) as desk:
        yield desk


async def test_a_decision_is_kept_with_the_fields_that_programs_read(desk: Desk) -> None:
    await desk.policies.put(policy("policy123", allow("queue:join", "queue:login", 'user.role == "VIP"')))
    await desk.has("user123", "VIP")
    decision = await desk.permissions.check("user123", JOIN)
    assert (decision.allowed, decision.policy_matched) == (True, "policy123")
    name = "iam:permission:cache:user123:queue:join:queue:login"
    kept: Any = await desk.redis.hgetall(name)
    assert (kept[b"allowed"], kept[b"policyMatched"]) == (b"true", b"policy123")
    assert kept[b"reason"].decode() == decision.reason
    assert kept[b"expiresAt"].endswith(b"Z")
    assert 0 < await desk.redis.ttl(name) <= 300
    assert await desk.permissions.check("user123", JOIN) == decision
    assert desk.looked_up == 1
    lines = await Audit(desk.redis).tail(10)
    assert [line.partition("|")[2] for line in lines] == [
        "user123|queue:join|queue:login|ALLOWED|policy123"
    ] * 2


async def test_that_nothing_allows_it_is_kept_too(desk: Desk) -> None:
    for _ in range(2):
        decision = await desk.permissions.check("anna", JOIN)
        assert (decision.allowed, decision.reason, decision.policy_matched) == (False, NOTHING_MATCHES, None)
    assert desk.looked_up == 1
    lines = await Audit(desk.redis).tail(10)
    assert [line.partition("|")[2] for line in lines] == ["anna|queue:join|queue:login|DENIED|-"] * 2


async def test_every_change_ends_what_was_kept(desk: Desk) -> None:
    catalogue = GroupCatalogue(desk.database, desk.redis)
    assert not await desk.allowed()
    await desk.policies.put(policy("p", allow("queue:join", condition='"swift" in user.permissions')))
    assert not await desk.allowed()
    await desk.groups.add("VIP_Users", "anna")
    assert not await desk.allowed()
    await catalogue.put(Definition("VIP_Users", "VIP", "", ["swift"]))
    assert await desk.allowed()
    await desk.policies.put(policy("q", deny("queue:join", condition='user.role == "BANNED"')))
    assert await desk.allowed()
    await desk.has("anna", "BANNED")
    assert not await desk.allowed()
    await desk.has("anna", "NORMAL")
    assert await desk.allowed()
    await desk.groups.remove("VIP_Users", "anna")
    assert not await desk.allowed()
    await desk.groups.add("VIP_Users", "anna")
    assert await desk.allowed()
    await desk.policies.remove("p")
    assert not await desk.allowed()


async def test_a_change_is_seen_by_every_process(desk: Desk) -> None:
    other = Desk(desk.redis, desk.database, Policies(desk.database, desk.redis), desk.groups)
    assert not await desk.allowed()
    assert not await other.allowed()
    await other.policies.put(policy("p", allow("queue:*")))
    assert await desk.allowed()
    assert await other.allowed()
    await desk.policies.remove("p")
    assert not await other.allowed()


async def test_an_account_that_may_not_be_used_may_nothing(desk: Desk) -> None:
    await desk.policies.put(policy("p", allow()))
    assert await desk.allowed()
    await desk.has("anna", "NORMAL", "DISABLED")
    assert await desk.permissions.check("anna", JOIN) == NO_ACCOUNT


async def test_what_the_caller_says_counts_for_one_question(desk: Desk) -> None:
    await desk.policies.put(
        policy("p", allow("queue:join", condition="has(context.level) && context.level > 9"))
    )
    assert await desk.allowed(question=Question(*JOIN_NAMES, {"level": 10}))
    assert not await desk.allowed()
    assert not await desk.allowed(question=Question(*JOIN_NAMES, {"level": 9}))
    assert await desk.allowed(question=Question(*JOIN_NAMES, {"level": 10}))
    assert len(await Audit(desk.redis).tail(10)) == 4


JOIN_NAMES = ("queue:join", "queue:login")


async def test_a_condition_that_fails_denies_and_says_so(desk: Desk) -> None:
    await desk.policies.put(policy("p", allow("queue:join", condition="context.level > 9")))
    decision = await desk.permissions.check("anna", JOIN)
    assert not decision.allowed
    assert decision.policy_matched == "p"
    assert 'failed: Key not found in map : "level"' in decision.reason


async def test_explaining_decides_nothing(desk: Desk) -> None:
    await desk.policies.put(policy("p", allow()))
    explained = await desk.permissions.explain("anna", JOIN)
    assert explained.decision.allowed
    assert explained.facts is not None
    assert await Audit(desk.redis).tail(10) == []
    assert not await desk.redis.exists(keys.permission("anna", *JOIN_NAMES))


async def test_who_asks_about_ever_new_things_does_not_fill_the_memory(desk: Desk) -> None:
    for number in range(MOST_KEPT_A_MINUTE + 20):
        await desk.allowed(question=Question("queue:join", f"queue:{number}", {}))
    assert len(await desk.redis.keys("iam:permission:cache:anna:*")) == MOST_KEPT_A_MINUTE
    assert not await desk.allowed("ben")
    assert len(await desk.redis.keys("iam:permission:cache:ben:*")) == 1


async def test_what_could_not_be_written_down_is_not_answered(desk: Desk) -> None:
    async def fill(many: int) -> None:
        pipeline = desk.redis.pipeline(transaction=False)
        for _ in range(many):
            pipeline.xadd(keys.AUDIT_PENDING, {"who": "x"})
        await pipeline.execute()

    assert not await desk.allowed()
    for _ in range(MOST_PENDING // 10_000):
        await fill(10_000)
    for question in (JOIN, Question(*JOIN_NAMES, {"level": 1}), Question("new", "thing", {})):
        with pytest.raises(AuditFull):
            await desk.allowed(question=question)
    # What lobbyd asks by itself goes on, and is counted: kept, with a context, and new.
    own = Permissions(desk.redis, PolicyWatch(desk.policies), desk.groups, desk._role_of, WhenFull.COUNT)
    for question in (JOIN, Question(*JOIN_NAMES, {"level": 1}), Question("new", "thing", {})):
        assert not (await own.check("anna", question)).allowed
    assert await Audit(desk.redis).arrears() == Arrears(pending=MOST_PENDING + 1, lost=3)


async def test_an_account_changed_by_hand_counts_once_its_cache_is_over(desk: Desk) -> None:
    await desk.policies.put(policy("p", allow(condition='user.role == "NORMAL"')))
    assert await desk.allowed()
    change = update(users_table).where(users_table.c.user_id == "anna").values(role="BANNED")
    await desk.database.transaction(lambda connection: connection.execute(change))
    await desk.redis.delete(keys.user("anna"))
    desk.role = "BANNED"
    assert not await desk.allowed()


# Names.

texts = st.text(st.sampled_from("ab:{}*%|\n3A"), max_size=6) | st.text(max_size=6)


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
@example(("anna", "queue", "join:queue:login"), ("anna", "queue:join", "queue:login"))
@example(("anna:queue", "join", "x"), ("anna", "queue:join", "x"))
@example(("a", "b:c:d", "e"), ("a", "b:c", "d:e"))
@example(("a", "b", "c"), ("a", "b:", "c"))
@example(("a", "b%3Ac", "c"), ("a", "b:c", "c"))
def test_no_two_decisions_have_the_same_name(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (keys.permission(*one) == keys.permission(*other)) is (one == other)


@given(texts, texts, texts)
def test_no_name_chooses_its_slot_or_its_line(user_id: str, action: str, resource: str) -> None:
    name = keys.permission(user_id, action, resource)
    assert name.isprintable()
    assert not {"{", "}"} & set(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("queue", "join:queue:login"), ("queue:join", "queue:login")),
        (("a:b:c", "d"), ("a:b", "c:d")),
        (("a", "b"), ("a%", "b")),
        (("a{b}", "c"), ("a", "{b}c")),
        (("a\nb", "c"), ("a%0Ab", "c")),
    ],
)
async def test_no_question_gets_the_answer_to_another(
    desk: Desk, one: tuple[str, str], other: tuple[str, str]
) -> None:
    await desk.policies.put(policy("p", allow(condition=f"action == {one[0]!r}")))
    assert await desk.allowed(question=Question(*one, {}))
    assert not await desk.allowed(question=Question(*other, {}))
    assert await desk.allowed(question=Question(*one, {}))
