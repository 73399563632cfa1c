"""The claims of a bearer token, shown to its user; nothing is verified here."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from micromegas_jupyter.core.system import Secret, duration_text
from micromegas_jupyter.core.text import decode_strict_json
from micromegas_jupyter.flightsql.commands import printable_text

_MAX_FIELD_CHARACTERS: Final = 200
_CLOCK_TOLERANCE: Final = timedelta(seconds=30)
_JWT_SEGMENTS: Final = 3


def read_claims(token: str) -> Mapping[str, object] | None:
    """Return a JWT's claims, to show them to its user, without verifying them; None if it isn't a JWT."""
    segments = token.split(".")
    if len(segments) != _JWT_SEGMENTS:
        return None
    try:
        payload = base64.urlsafe_b64decode(segments[1] + "=" * (-len(segments[1]) % 4))
        claims = decode_strict_json(payload.decode("utf-8"))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def claimed_end(claims: Mapping[str, object] | None) -> datetime | None:
    """Return a token's claimed expiry time (aware UTC), or None."""
    from micromegas_jupyter.oidc.jwt import TokenProblem, expiry_of

    try:
        return None if claims is None else expiry_of(claims)
    except TokenProblem:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDescription:
    """Sentences that describe a token's origin and times to its user.

    `is_clock_wrong` if this machine's clock explains a rejection.
    """

    origin: str = ""
    times: str = ""
    is_clock_wrong: bool = False
    has_expired: bool = False


def describe_token(token: Secret, *, now: datetime, clock_offset_seconds: float = 0.0) -> TokenDescription:
    """Describe a token by its unverified claims; only JWTs have claims.

    Args:
        token: The token.
        now: The local time.
        clock_offset_seconds: How far the identity provider's clock is ahead of the local clock; 0 if not measured.
    """
    claims = read_claims(token.reveal()) or {}
    audience, issuer, expires_at = claims.get("aud"), claims.get("iss"), claimed_end(claims)
    if isinstance(audience, list):
        audience = ", ".join(str(entry) for entry in audience)
    origin = ""
    if isinstance(audience, str) and isinstance(issuer, str):
        audience, issuer = (printable_text(text)[:_MAX_FIELD_CHARACTERS] for text in (audience, issuer))
        origin = f'The token is for audience "{audience}", from {issuer}.'
    issued_at, begins_at = _claimed_time(claims, "iat"), _claimed_time(claims, "nbf")
    if issued_at is not None:
        # The provider's clock must have reached that time.
        clock_offset_seconds = max(clock_offset_seconds, (issued_at - now).total_seconds())
    is_offset = abs(clock_offset_seconds) > _CLOCK_TOLERANCE.total_seconds()
    is_early = begins_at is not None and begins_at - now > _CLOCK_TOLERANCE
    has_expired = expires_at is not None and expires_at <= now
    times = []
    if is_offset:
        distance = duration_text(timedelta(seconds=abs(clock_offset_seconds)))
        direction = "behind" if clock_offset_seconds > 0 else "ahead of"
        times.append(f"This machine's clock is {distance} {direction} the identity provider's.")
    if is_early:
        times.append(f"The token is valid from {begins_at:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M} UTC.")
    if has_expired:
        times.append(f"It expired at {expires_at:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M} UTC.")
    return TokenDescription(
        origin=origin, times=" ".join(times), is_clock_wrong=is_offset or is_early, has_expired=has_expired
    )


def _claimed_time(claims: Mapping[str, object], name: str) -> datetime | None:
    """Return a time in the claims (aware UTC); None if it is missing or invalid."""
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
