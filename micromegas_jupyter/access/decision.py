"""What a validator can find: accepted, refused, or not to be decided now; and who asked, for the audit log.

How a finding is reached is each validator's job; turning it into a return value or an error is `deciding`'s.
"""

from dataclasses import dataclass
from typing import TypeAlias

from micromegas_jupyter.contracts import AuthContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a credential says of itself, believed or not; for the audit log only.

    Attributes:
        issuer: The token's `iss`, when it is text.
        subject: The token's `sub`, when it is text.
        key_id: The token's `kid`, when it has one.
    """

    issuer: str | None = None
    subject: str | None = None
    key_id: str | None = None


NOTHING_CLAIMED = Claimed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The credential is good; `context` is its bearer."""

    context: AuthContext
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The credential was looked at and is bad; `reason` is a fixed word."""

    reason: str
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """A part that is needed to judge the credential does not answer; `reason` is a fixed word."""

    reason: str
    claimed: Claimed = NOTHING_CLAIMED


Decision: TypeAlias = Accepted | Refused | Undecided
