"""What a validator can find: accepted, refused, or not to be decided now; and who asked, for the audit log.

How a finding is reached is each validator's job; turning it into a return value or an error is `deciding`'s.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.oidc.keys import KeySet


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

    outcome: ClassVar[str] = "accepted"
    reason: ClassVar[None] = None

    context: AuthContext
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The credential was looked at and is bad; `reason` is a fixed word."""

    outcome: ClassVar[str] = "refused"

    reason: str
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """A part that is needed to judge the credential does not answer; `reason` is a fixed word.

    `awaited_fetch` is set when nobody has waited yet: the same question may have another answer after that fetch.
    """

    outcome: ClassVar[str] = "undecided"

    reason: str
    claimed: Claimed = NOTHING_CLAIMED
    awaited_fetch: Future[KeySet | None] | None = field(default=None, repr=False, compare=False)


Decision: TypeAlias = Accepted | Refused | Undecided
