"""What follows from policies: deny beats allow, a failure denies, and what nothing allows is not allowed."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from storage.policies import Decision, Facts, PolicyFault, Question, Rule, parse
from storage.policies.policy import MOST_RULES
from storage.policies.rulebook import MOST_KNOWN, NOTHING_MATCHES
from tests.storage.policies.making import DEFAULTS, allow, deny, policy, rulebook

NOBODY = Facts("anna", "NORMAL", ["NORMAL"], [], [])
JOIN = Question("queue:join", "queue:login", {})

FAILING = "context.nothing == 1"
conditions = st.sampled_from([None, "true", "false", FAILING])
rules = st.builds(
    Rule,
    action=st.sampled_from(["*", "queue:*", "queue:join", "queue:leave", "*:join"]),
    resource=st.sampled_from(["*", "queue:login", "queue:*", "game:*"]),
    condition=conditions,
    effect=st.sampled_from(["allow", "deny"]),
)


def decide(*made: Rule, question: Question = JOIN, facts: Facts = NOBODY) -> Decision:
    return rulebook(policy("p", *made)).decide(facts, question)


def test_nothing_matching_means_no() -> None:
    assert decide() == Decision(False, NOTHING_MATCHES, None)
    assert decide(allow("queue:leave")) == Decision(False, NOTHING_MATCHES, None)
    assert decide(allow("queue:join", "game:*")) == Decision(False, NOTHING_MATCHES, None)
    assert decide(allow(condition="false")) == Decision(False, NOTHING_MATCHES, None)


def test_the_answer_says_why_and_by_which_policy() -> None:
    book = rulebook(policy("other", allow("game:*")), policy("queues", allow("a:b"), allow("queue:*")))
    assert book.decide(NOBODY, JOIN) == Decision(True, 'Allowed by rule 2 of policy "queues".', "queues")
    book = rulebook(
        policy("all", allow()), policy("closed", deny("queue:*", condition='user.role != "ADMIN"'))
    )
    assert book.decide(NOBODY, JOIN) == Decision(False, 'Denied by rule 1 of policy "closed".', "closed")


def test_a_condition_that_fails_denies_and_says_so() -> None:
    for made in (allow(condition=FAILING), deny(condition=FAILING)):
        decision = decide(allow(), made, allow())
        assert (decision.allowed, decision.policy_matched) == (False, "p")
        assert (
            'the condition of rule 2 of policy "p" failed: Key not found in map : "nothing"'
            in decision.reason
        )


@given(st.lists(rules, max_size=6), st.randoms())
def test_the_order_of_rules_decides_nothing(made: list[Rule], random: Any) -> None:
    before = decide(*made)
    shuffled = list(made)
    random.shuffle(shuffled)
    assert decide(*shuffled).allowed is before.allowed


@given(st.lists(rules, max_size=6))
def test_deny_beats_allow_and_a_failure_is_a_no(made: list[Rule]) -> None:
    matching = [
        rule
        for rule in made
        if rule.action in {"*", "queue:*", "queue:join", "*:join"}
        and rule.resource in {"*", "queue:login", "queue:*"}
    ]
    is_denied = any(rule.effect == "deny" and rule.condition in {None, "true"} for rule in matching)
    fails = any(rule.condition == FAILING for rule in matching)
    is_allowed = any(rule.effect == "allow" and rule.condition in {None, "true"} for rule in matching)
    assert decide(*made).allowed is (is_allowed and not is_denied and not fails)


def test_a_rule_that_was_broken_by_hand_fails_wherever_it_may_have_matched() -> None:
    for broken in (
        allow("a*"),
        deny(condition="user.role =="),
        Rule(action="*", resource="*", condition="x y"),
    ):
        decision = decide(allow(), broken)
        assert (decision.allowed, decision.policy_matched) == (False, "p")
        assert "rule 2" in decision.reason


@pytest.mark.parametrize(
    "condition", ['user.id == "anna"', 'user\n.id // c\n == "anna"', '"anna" in [user.id]']
)
def test_what_is_one_users_own_is_decided_for_that_user(condition: str) -> None:
    book = rulebook(policy("p", allow(condition=condition)))
    for user_id in ("anna", "ben", "anna", "ben"):
        assert book.decide(Facts(user_id, "NORMAL", ["NORMAL"], [], []), JOIN).allowed is (user_id == "anna")


@given(st.lists(st.tuples(st.sampled_from(["VIP", "NORMAL"]), st.booleans(), st.booleans()), max_size=20))
def test_what_was_decided_for_others_decides_for_no_other_facts(users: list[tuple[str, bool, bool]]) -> None:
    condition = 'user.role == "VIP" && "g" in user.groups && "p" in user.permissions'
    book = rulebook(policy("p", allow("queue:join", condition=condition)))
    for role, has_group, has_permission in users:
        facts = Facts("anna", role, [role], ["g"] * has_group, ["p"] * has_permission)
        expected = role == "VIP" and has_group and has_permission
        assert book.decide(facts, JOIN).allowed is expected
        assert not book.decide(facts, Question("queue:leave", "queue:login", {})).allowed


def test_what_one_user_bears_alone_is_no_fact_of_others() -> None:
    book = rulebook(*DEFAULTS, policy("p", allow("role:bear", "role:ADMIN", 'user.id == "anna"')))
    for user_id in ("ben", "anna", "ben", "anna"):
        facts = book.facts(user_id, "NORMAL", {"Testers"})
        assert (facts.user_id, "ADMIN" in facts.roles) == (user_id, user_id == "anna")


def test_what_is_remembered_is_bounded() -> None:
    book = rulebook(policy("p", allow()))
    for number in range(MOST_KNOWN + 10):
        assert book.decide(NOBODY, Question("a", str(number), {})).allowed
        assert book.facts("anna", str(number), set()).role == str(number)
    assert len(book._known) <= MOST_KNOWN
    assert len(book._known_facts) == 10


def test_facts_are_what_the_groups_permit() -> None:
    facts = rulebook().facts("anna", "NORMAL", {"VIP_Users", "Testers", "gone"})
    assert facts.groups == ["Testers", "VIP_Users", "gone"]
    assert facts.permissions == ["game_early_access", "queue_priority"]


@pytest.mark.parametrize(
    ("role", "bears", "allowed"),
    [
        ("ADMIN", "ADMIN", True),
        ("NORMAL", "NORMAL", True),
        ("GAME_SERVER", "GAME_SERVER", True),
        ("NORMAL", "ADMIN", False),
        ("ADMIN", "GAME_SERVER", False),
    ],
)
def test_by_default_an_account_bears_the_role_that_it_has(role: str, bears: str, allowed: bool) -> None:
    question = Question("role:bear", f"role:{bears}", {})
    assert rulebook(*DEFAULTS).decide(Facts("anna", role, [role], [], []), question).allowed is allowed


@pytest.mark.parametrize(
    ("role", "groups", "roles"),
    [
        ("NORMAL", set(), ["NORMAL"]),
        ("NORMAL", {"Servers"}, ["NORMAL", "GAME_SERVER"]),
        ("ADMIN", {"Servers"}, ["ADMIN", "GAME_SERVER"]),
        ("GAME_SERVER", {"Closed"}, []),
    ],
)
def test_which_roles_are_borne_is_a_fact(role: str, groups: set[str], roles: list[str]) -> None:
    bearing = policy(
        "p",
        allow("role:bear", "role:GAME_SERVER", '"Servers" in user.groups'),
        # Rules about bearing do not see what other such rules give.
        allow("role:bear", "role:ADMIN", '"GAME_SERVER" in user.roles && user.role != "GAME_SERVER"'),
        deny("role:bear", "role:*", '"Closed" in user.groups'),
    )
    assert rulebook(*DEFAULTS, bearing).facts("anna", role, groups).roles == roles


@pytest.mark.parametrize(
    ("action", "resource", "roles"),
    [
        ("request:send", "request:game:finish", {"ADMIN", "GAME_SERVER"}),
        ("request:send", "request:monitor:subscribe", {"ADMIN"}),
        ("request:send", "request:portal:submit", set()),
        ("user:act_for", "request:ranking:submit", {"ADMIN", "GAME_SERVER"}),
        ("notification:send", "notification:groups", {"ADMIN", "GAME_SERVER"}),
        ("notification:send", "notification:email", {"ADMIN", "GAME_SERVER"}),
    ],
)
def test_what_roles_are_good_for_by_default(action: str, resource: str, roles: set[str]) -> None:
    book = rulebook(*DEFAULTS)
    for role in ("NORMAL", "PREMIUM", "VIP", "GAME_SERVER", "ADMIN"):
        facts = book.facts("anna", role, set())
        assert book.decide(facts, Question(action, resource, {})).allowed is (role in roles), role


# Written policies.

HEAD = '{"policyId": "p", "policyName": "P", "rules": '


def test_a_policy_is_read_as_it_is_written() -> None:
    read = parse(
        HEAD + '[{"action":"queue:join","resource":"queue:login","condition":"user.role == \\"VIP\\""}]}'
    )
    assert read.rules == (Rule(action="queue:join", resource="queue:login", condition='user.role == "VIP"'),)
    assert read.rules[0].effect == "allow"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"policyId": "p",\n  "policyName": }', "line 2, column 17: Expecting value"),
        ("[]", "Expected `object`"),
        (HEAD + "[]}", "length >= 1"),
        (HEAD + '[{"action": "a"}]}', r"missing required field `resource` - at `\$.rules\[0\]`"),
        (HEAD + '[{"action": "a", "resource": "b", "effects": "deny"}]}', "unknown field `effects`"),
        (HEAD + '[{"action": "a", "resource": "b", "effect": "maybe"}]}', r"at `\$.rules\[0\].effect`"),
        (HEAD + '[{"action": "a:*b", "resource": "b"}]}', "rule 1, action: .* whole segment"),
        (HEAD + '[{"action": "a", "resource": "b::c"}]}', "rule 1, resource: .* empty segment"),
        (
            HEAD
            + '[{"action": "a", "resource": "b"}, {"action": "a", "resource": "b", "condition": "1 +"}]}',
            "rule 2, condition, line 1, column 4: Syntax error",
        ),
        (
            HEAD + '[{"action": "a", "resource": "b", "condition": "user.rolle == 1"}]}',
            "rule 1, condition, line 1, column 5: undeclared reference to 'user.rolle'",
        ),
        (HEAD.replace('"P"', '"P\\n|x"') + '[{"action": "a", "resource": "b"}]}', "`policyName` contains"),
        (HEAD.replace('"p"', '"p:{q}"') + '[{"action": "a", "resource": "b"}]}', r"at `\$.policyId`"),
        (
            HEAD + "[" + ",".join(['{"action": "a", "resource": "b"}'] * (MOST_RULES + 1)) + "]}",
            "length <= 50",
        ),
        ("[" * 100_000, "nested too deep|Expecting"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_the_place_of_the_fault(text: str, fault: str) -> None:
    with pytest.raises(PolicyFault, match=fault):
        parse(text)
