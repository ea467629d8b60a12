"""Which tier groups give."""

import pytest

from storage.tickets import Tier
from workers.login.tiers import tier_of


@pytest.mark.parametrize(
    ("groups", "tier"),
    [
        (set(), Tier.NORMAL),
        ({"Testers"}, Tier.NORMAL),
        ({"Premium_Users"}, Tier.PREMIUM),
        ({"VIP_Users"}, Tier.VIP),
        ({"Premium_Users", "VIP_Users", "Testers"}, Tier.VIP),
    ],
)
def test_the_best_group_decides(groups: set[str], tier: Tier) -> None:
    assert tier_of(groups) is tier
