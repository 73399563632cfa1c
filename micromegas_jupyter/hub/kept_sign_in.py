"""What the Hub keeps of a person's sign-in (OAuthenticator's auth state), read: which token, until when, and whose.

Renewing it is `refreshing`'s job, and so is what is written there; the service only reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.oidc.claims import expiry_of
from micromegas_jupyter.oidc.jws import TokenProblem, parse_token
from micromegas_jupyter.oidc.token import usable_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from micromegas_jupyter.contracts import Secret
    from micromegas_jupyter.settings import Bearer

REFUSED_MARK: Final = "micromegas_refresh_refused"
"""Set in the auth state when the provider has refused to renew a sign-in; the next sign-in replaces it all."""

STALE_MARK: Final = "micromegas_renewed_without_token"
"""Set in the auth state when the provider has renewed a sign-in and brought no new token of the wanted kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBearer:
    """A token that can be sent to a server.

    Attributes:
        token: The token.
        expires_at: When it ends (aware UTC).
        subject: What the provider calls the person; None when it does not say.
        lifetime_seconds: How long it was made for; None when it does not say.
    """

    token: Secret
    expires_at: datetime
    subject: str | None = None
    lifetime_seconds: float | None = None


def read_bearer(auth_state: Mapping[str, object], bearer: Bearer) -> HeldBearer | None:
    """Return the token of the wanted kind; None when there is none that says when it ends."""
    token = usable_token(auth_state.get(bearer.value))
    return None if token is None else _held(token)


def is_refused(auth_state: Mapping[str, object]) -> bool:
    """Whether the provider has refused to renew this sign-in."""
    return auth_state.get(REFUSED_MARK) is True


def is_stale(auth_state: Mapping[str, object]) -> bool:
    """Whether the provider's renewals bring no new token of the wanted kind."""
    return auth_state.get(STALE_MARK) is True


def is_same_sign_in(old: Secret | None, new: Secret | None) -> bool:
    """Whether a renewed ID token continues the sign-in of the old one; it does when either is missing.

    Its audience may have become larger. Source: OpenID Connect Core 1.0 section 12.2.
    """
    if old is None or new is None:
        return True
    before, after = _claims(old), _claims(new)
    if before is None or after is None:
        return after is not None
    is_same_person = all(before.get(name) == after.get(name) for name in ("iss", "sub"))
    return is_same_person and _audience(before) <= _audience(after)


def _audience(claims: Mapping[str, object]) -> frozenset[str]:
    stated = claims.get("aud")
    return frozenset(map(str, stated)) if isinstance(stated, list) else frozenset({str(stated)})


def _held(token: Secret) -> HeldBearer | None:
    claims = _claims(token)
    if claims is None:
        return None
    try:
        expires_at = expiry_of(claims)
    except TokenProblem:
        return None
    issued = claims.get("iat")
    is_number = isinstance(issued, int | float) and not isinstance(issued, bool)
    lifetime = expires_at.timestamp() - float(issued) if is_number else None  # type: ignore[arg-type]  # a number
    subject = claims.get("sub")
    return HeldBearer(
        token=token,
        expires_at=expires_at,
        subject=subject if isinstance(subject, str) else None,
        lifetime_seconds=lifetime,
    )


def _claims(token: Secret) -> Mapping[str, object] | None:
    try:
        return parse_token(token.reveal()).claims
    except TokenProblem:
        return None
