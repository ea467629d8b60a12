"""Which tier of the waiting room a player has: the best that policies allow. Pure."""

from storage.policies import Decision, Facts, Question, Rulebook
from storage.tickets import Tier

QUESTIONS = {
    tier: Question("queue:priority", f"queue:portal:{tier.name}", {}) for tier in (Tier.VIP, Tier.PREMIUM)
}
"""What a player must be allowed for a tier, best first."""


def tier_of(rulebook: Rulebook, facts: Facts) -> tuple[Tier, Decision | None]:
    """The tier, and the decision that gave it; None for NORMAL, which is everybody's."""
    for tier, question in QUESTIONS.items():
        decision = rulebook.decide(facts, question)
        if decision.allowed:
            return tier, decision
    return Tier.NORMAL, None
