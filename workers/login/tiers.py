"""Which tier of the waiting room a player's groups give (section 2.2 and the rush of the seed). Pure."""

from collections.abc import Set

from storage.tickets import Tier

TIER_GROUPS = {"VIP_Users": Tier.VIP, "Premium_Users": Tier.PREMIUM}
"""The groups that give a tier, best first."""


def tier_of(groups: Set[str]) -> Tier:
    """The best tier that any of the groups gives; NORMAL when none does."""
    return next((tier for group, tier in TIER_GROUPS.items() if group in groups), Tier.NORMAL)
