"""One sign-in in memory: its tokens, what the ID token says, and how fresh each bearer token is.

Renewing it is `session_keeper`'s job.
"""

import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Randomness
from micromegas_jupyter.errors import LoginRequired, ProviderMisbehaved
from micromegas_jupyter.oidc.id_token import IdTokenClaims, read_stored_id_token
from micromegas_jupyter.oidc.tokens import TokenSet

LONGEST_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 4
LARGEST_DELAY_SHARE = 0.2
# How soon a provider that renewed without an ID token is asked again.
SHORTEST_ID_TOKEN_PAUSE = timedelta(seconds=30)

# Stored times are whole seconds, and a provider's clock is not told from this machine's within two.
_INACCURACY = timedelta(seconds=2)


class Freshness(enum.Enum):
    """How much of a token's life is left."""

    FRESH = enum.auto()
    ENDING = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The tokens of one sign-in and the claims of its ID token (None when it has no ID token).

    All times are by the provider's clock.

    Attributes:
        tokens: The tokens.
        claims: What the ID token says.
    """

    tokens: TokenSet
    claims: IdTokenClaims | None

    def freshness(self, bearer: Bearer, now: datetime, *, delay_share: float = 0.0) -> Freshness:
        """Return how much life is left in the token that `bearer` names; a missing one has ended."""
        if bearer is Bearer.ID_TOKEN and self.claims is None:
            return Freshness.ENDED
        begins_at, ends_at = self._life(bearer)
        return freshness_of(begins_at, ends_at, now, delay_share=delay_share)

    @property
    def id_token_was_kept(self) -> bool:
        """Whether the ID token was already due for renewal when the access token came, and none came with it."""
        obtained_at = self.tokens.obtained_at
        if self.claims is None or obtained_at is None:
            return False
        lifetime = self.claims.expires_at - self.claims.issued_at
        return obtained_at >= _due_at(self.claims.issued_at, self.claims.expires_at, 0) - min(_INACCURACY, lifetime / 4)

    def renewable_from(self, bearer: Bearer) -> datetime | None:
        """Return from when on another renewal may bring more than the last one did; None when that is at once.

        A provider that renewed without an ID token may never give one. So the pauses grow with the time that has
        passed since the ID token ended, and all programs that share the sign-in keep the same ones.
        """
        obtained_at = self.tokens.obtained_at
        if bearer is Bearer.ACCESS_TOKEN or self.claims is None or obtained_at is None or not self.id_token_was_kept:
            return None
        return obtained_at + max(SHORTEST_ID_TOKEN_PAUSE, obtained_at - self.claims.expires_at)

    def due_at(self, bearer: Bearer, *, delay_share: float = 0.0) -> datetime | None:
        """Return from when on the token should be renewed; None when that is not known."""
        begins_at, ends_at = self._life(bearer)
        return None if ends_at is None else _due_at(begins_at, ends_at, delay_share)

    def token(self, bearer: Bearer) -> Secret:
        """Return the token that `bearer` names.

        Raises:
            LoginRequired: The sign-in has no such token.
        """
        token = self.tokens.access_token if bearer is Bearer.ACCESS_TOKEN else self.tokens.id_token
        if token is None:
            raise LoginRequired("The sign-in has no ID token.")
        return token

    def _life(self, bearer: Bearer) -> tuple[datetime | None, datetime | None]:
        if bearer is Bearer.ACCESS_TOKEN:
            return self.tokens.obtained_at, self.tokens.expires_at
        return (None, None) if self.claims is None else (self.claims.issued_at, self.claims.expires_at)


def freshness_of(
    begins_at: datetime | None, ends_at: datetime | None, now: datetime, *, delay_share: float = 0.0
) -> Freshness:
    """Judge a token's life; one that has no known end is fresh.

    It is renewed within the last five minutes or the last quarter of its life, whichever is shorter, so that
    tokens which live for a few minutes only are usable too. `delay_share` is how much of that time passes first.
    """
    if ends_at is None:
        return Freshness.FRESH
    if now >= ends_at:
        return Freshness.ENDED
    return Freshness.ENDING if now >= _due_at(begins_at, ends_at, delay_share) else Freshness.FRESH


def draw_delay_share(randomness: Randomness) -> float:
    """Draw how much of the time for renewals a program lets pass, so that many programs do not renew at once."""
    drawn = hashlib.sha256(randomness.token_urlsafe(8).encode()).digest()
    return LARGEST_DELAY_SHARE * int.from_bytes(drawn[:4]) / 2**32


def session_from_storage(tokens: TokenSet, *, issuer: str, client_id: str) -> Session:
    """Make a session of tokens that were verified when they came.

    Raises:
        LoginRequired: The ID token is damaged or another's.
    """
    if tokens.id_token is None:
        return Session(tokens=tokens, claims=None)
    try:
        claims = read_stored_id_token(tokens.id_token, issuer=issuer, client_id=client_id)
    except ProviderMisbehaved:
        raise LoginRequired("The stored sign-in holds an ID token that cannot be used.") from None
    return Session(tokens=tokens, claims=claims)


def _due_at(begins_at: datetime | None, ends_at: datetime, delay_share: float) -> datetime:
    margin = LONGEST_MARGIN if begins_at is None else min(LONGEST_MARGIN, (ends_at - begins_at) / MARGIN_SHARE)
    return ends_at - margin * (1 - delay_share)
