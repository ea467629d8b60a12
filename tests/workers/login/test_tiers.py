"""Which tier the shipped policies give, and that others give others."""

import pytest

from storage.tickets import Tier
from tests.storage.policies.making import DEFAULTS, allow, deny, policy, rulebook
from workers.login.tiers import tier_of


@pytest.mark.parametrize(
    ("role", "groups", "tier"),
    [
        ("NORMAL", set(), Tier.NORMAL),
        ("NORMAL", {"Testers"}, Tier.NORMAL),
        ("NORMAL", {"Premium_Users"}, Tier.PREMIUM),
        ("NORMAL", {"VIP_Users"}, Tier.VIP),
        ("NORMAL", {"Premium_Users", "VIP_Users", "Testers"}, Tier.VIP),
        ("PREMIUM", set(), Tier.PREMIUM),
        ("VIP", {"Premium_Users"}, Tier.VIP),
        ("ADMIN", set(), Tier.NORMAL),
    ],
)
def test_the_best_that_is_allowed_decides(role: str, groups: set[str], tier: Tier) -> None:
    book = rulebook(*DEFAULTS)
    found, decision = tier_of(book, book.facts("anna", role, groups))
    assert found is tier
    assert (decision is None) is (tier is Tier.NORMAL)


def test_other_policies_give_other_tiers() -> None:
    testers_first = policy("t", allow("queue:priority", "queue:portal:VIP", '"Testers" in user.groups'))
    book = rulebook(*DEFAULTS, testers_first)
    assert tier_of(book, book.facts("anna", "NORMAL", {"Testers"}))[0] is Tier.VIP
    book = rulebook(*DEFAULTS, policy("equal", deny("queue:priority")))
    assert tier_of(book, book.facts("anna", "VIP", {"VIP_Users"}))[0] is Tier.NORMAL
    book = rulebook()
    assert tier_of(book, book.facts("anna", "VIP", {"VIP_Users"}))[0] is Tier.NORMAL
