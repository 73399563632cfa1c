"""One sign-in in memory: its tokens, what the ID token says, and how fresh each bearer token is.

Renewing it is `session_keeper`'s job.
"""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import LoginRequired, ProviderMisbehaved
from micromegas_jupyter.oidc.id_token import IdTokenClaims, read_stored_id_token
from micromegas_jupyter.oidc.token import TokenSet

LONGEST_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 4


class Bearer(enum.StrEnum):
    """Which of the tokens is sent to the server."""

    ID_TOKEN = "id_token"  # noqa: S105 - a kind of token, not a token
    ACCESS_TOKEN = "access_token"  # noqa: S105 - a kind of token, not a token


class Freshness(enum.Enum):
    """How much of a token's life is left."""

    FRESH = enum.auto()
    ENDING = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The tokens of one sign-in and the claims of its ID token (None when it has no ID token).

    Attributes:
        tokens: The tokens.
        claims: What the ID token says.
        id_token_was_kept: Whether the last renewal brought no ID token, so that the old one is still held.
    """

    tokens: TokenSet
    claims: IdTokenClaims | None
    id_token_was_kept: bool = False

    def freshness(self, bearer: Bearer, now: datetime) -> Freshness:
        """Return how much life is left in the token that `bearer` names; a missing one has ended."""
        if bearer is Bearer.ACCESS_TOKEN:
            return freshness_of(self.tokens.obtained_at, self.tokens.expires_at, now)
        if self.claims is None:
            return Freshness.ENDED
        return freshness_of(self.claims.issued_at, self.claims.expires_at, now)

    def token(self, bearer: Bearer) -> Secret:
        """Return the token that `bearer` names.

        Raises:
            LoginRequired: The sign-in has no such token.
        """
        token = self.tokens.access_token if bearer is Bearer.ACCESS_TOKEN else self.tokens.id_token
        if token is None:
            raise LoginRequired("The sign-in has no ID token.")
        return token


def freshness_of(begins_at: datetime | None, ends_at: datetime | None, now: datetime) -> Freshness:
    """Judge a token's life; one that has no known end is fresh.

    It is renewed within the last five minutes or the last quarter of its life, whichever is shorter, so that
    tokens which live for a few minutes only are usable too.
    """
    if ends_at is None:
        return Freshness.FRESH
    if now >= ends_at:
        return Freshness.ENDED
    margin = LONGEST_MARGIN if begins_at is None else min(LONGEST_MARGIN, (ends_at - begins_at) / MARGIN_SHARE)
    return Freshness.ENDING if now >= ends_at - margin else Freshness.FRESH


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
