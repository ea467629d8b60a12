"""Whose a ticket is, and how they have come."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a ticket keeps of the login that it is for, until it is spent.

    `family` names the refresh tokens that it was made with, or is empty. `risk`, from 0 to 1, becomes the
    session's, and so does `trace`, that of the stay. `auto_match` is the Search that is to begin then, as
    JSON, or empty.
    """

    family: str = ""
    risk: float = 0.0
    trace: str = ""
    auto_match: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a ticket is, and how they have come; the risk is left out."""

    user_id: str
    entrance: Entrance
