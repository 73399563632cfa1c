"""Says who is signed in, as far as the tokens tell.

Whether anybody is signed in at all is `session_keeper`'s to know.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from micromegas_jupyter.auth.identity import Identity
from micromegas_jupyter.auth.session import Session
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.claims import expiry_of
from micromegas_jupyter.oidc.id_token import shown_groups
from micromegas_jupyter.oidc.jws import TokenProblem, parse_token

_MAX_SHOWN_CHARACTERS = 256


def known_identity(session: Session, *, issuer: str, bearer: Bearer) -> Identity:
    """Return who is signed in: by the ID token, or where there is none by an access token that can be read.

    Args:
        session: The sign-in.
        issuer: The provider.
        bearer: The token whose end counts.

    Raises:
        LoginRequired: The tokens say nothing about their person.
    """
    claims = session.claims
    if claims is None:
        return _identity_by_access_token(session, issuer)
    ends_at = session.tokens.expires_at if bearer is Bearer.ACCESS_TOKEN else None
    return Identity(
        subject=claims.subject,
        name=claims.name,
        email=claims.email,
        issuer=claims.issuer,
        expires_at=ends_at or claims.expires_at,
        renews=session.tokens.refresh_token is not None,
        groups=claims.groups,
    )


def _identity_by_access_token(session: Session, issuer: str) -> Identity:
    try:
        claims = parse_token(session.tokens.access_token.reveal()).claims
        ends_at = session.tokens.expires_at or expiry_of(claims)
    except TokenProblem:
        raise _unknown() from None
    subject = _shown(claims, "sub")
    if subject is None:
        raise _unknown()
    return _identity_by_claims(
        claims, subject=subject, issuer=issuer, ends_at=ends_at, renews=session.tokens.refresh_token is not None
    )


def bearer_identity(bearer: Secret, *, user: str, issuer: str, ends_at: datetime) -> Identity:
    """Return who a bearer token is for that a trusted service gave and renews; `user` when the token does not say."""
    try:
        claims: Mapping[str, object] = parse_token(bearer.reveal()).claims
    except TokenProblem:
        claims = {}
    subject = _shown(claims, "sub") or user[:_MAX_SHOWN_CHARACTERS]
    identity = _identity_by_claims(claims, subject=subject, issuer=issuer, ends_at=ends_at, renews=True)
    return identity if identity.name or identity.email else replace(identity, name=user[:_MAX_SHOWN_CHARACTERS])


def _identity_by_claims(
    claims: Mapping[str, object], *, subject: str, issuer: str, ends_at: datetime, renews: bool
) -> Identity:
    # For display only, so it need not be verified: it came from the provider itself, and the server will verify it.
    return Identity(
        subject=subject,
        name=_shown(claims, "name") or _shown(claims, "preferred_username"),
        email=_shown(claims, "email"),
        issuer=issuer,
        expires_at=ends_at,
        renews=renews,
        groups=shown_groups(claims),
    )


def _shown(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value[:_MAX_SHOWN_CHARACTERS] if isinstance(value, str) and value and value.isprintable() else None


def _unknown() -> LoginRequired:
    return LoginRequired(
        "The sign-in does not say who you are: the identity provider gave no ID token.",
        remedy="Ask whoever runs the identity provider to allow the scope openid for this application.",
    )
