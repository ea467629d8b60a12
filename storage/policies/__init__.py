"""Policies: what they are, what follows from them, and where they are kept."""

from storage.policies.conditions import ConditionFault, Facts
from storage.policies.policy import Policy, PolicyFault, Rule, parse
from storage.policies.rulebook import Decision, Question, Rulebook, bearing
from storage.policies.store import Policies, PolicyNotFound, PolicyWatch

__all__ = [
    "ConditionFault",
    "Decision",
    "Facts",
    "Policies",
    "Policy",
    "PolicyFault",
    "PolicyNotFound",
    "PolicyWatch",
    "Question",
    "Rule",
    "Rulebook",
    "bearing",
    "parse",
]
