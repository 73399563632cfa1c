"""What a bearer token says about itself, for the user who has it: nothing in it is verified here."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from micromegas_jupyter.core.json import decode_strict_json
from micromegas_jupyter.core.system import Secret, duration_text
from micromegas_jupyter.flightsql.commands import printable_text

_MAX_FIELD_CHARACTERS: Final = 200
_CLOCK_TOLERANCE: Final = timedelta(seconds=30)
_JWT_SEGMENTS: Final = 3


def read_claims(token: str) -> Mapping[str, object] | None:
    """Return what a JWT says about itself, for the person who has it: nothing is verified. None when it is no JWT."""
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
    """Return when a token says that it expires (aware UTC); None when it does not say."""
    from micromegas_jupyter.oidc.jwt import TokenProblem, expiry_of

    try:
        return None if claims is None else expiry_of(claims)
    except TokenProblem:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDescription:
    """Sentences about a JWT for its user: who issued it for what, and what the times in it show."""

    origin: str = ""
    times: str = ""
    is_clock_wrong: bool = False
    has_expired: bool = False


def describe_token(token: Secret, *, now: datetime, clock_offset_seconds: float = 0.0) -> TokenDescription:
    """Describe a JWT, whose claims nobody has verified; of other tokens only `clock_offset_seconds` is known.

    It says how far the identity provider's clock is ahead of `now`, which is this machine's time.
    """
    claims = read_claims(token.reveal()) or {}
    audience, issuer, expires_at = claims.get("aud"), claims.get("iss"), claimed_end(claims)
    if isinstance(audience, list):
        audience = ", ".join(str(entry) for entry in audience)
    origin = ""
    if isinstance(audience, str) and isinstance(issuer, str):
        audience, issuer = (printable_text(text)[:_MAX_FIELD_CHARACTERS] for text in (audience, issuer))
        origin = f'The token is for audience "{audience}", from {issuer}.'
    begins_at = _claimed_begin(claims)
    is_early = begins_at is not None and begins_at - now > _CLOCK_TOLERANCE
    if begins_at is not None and is_early:
        # The provider had that time when it issued the token, so its clock is at least that far ahead.
        clock_offset_seconds = max(clock_offset_seconds, (begins_at - now).total_seconds())
    is_clock_wrong = abs(clock_offset_seconds) > _CLOCK_TOLERANCE.total_seconds()
    times = []
    if is_clock_wrong:
        distance = duration_text(timedelta(seconds=abs(clock_offset_seconds)))
        direction = "behind" if clock_offset_seconds > 0 else "ahead of"
        times.append(f"This machine's clock is {distance} {direction} the identity provider's.")
    if begins_at is not None and is_early:
        times.append(f"The token is valid from {begins_at:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M} UTC.")
    has_expired = expires_at is not None and expires_at <= now
    if has_expired:
        times.append(f"It expired at {expires_at:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M} UTC.")
    return TokenDescription(
        origin=origin, times=" ".join(times), is_clock_wrong=is_clock_wrong, has_expired=has_expired
    )


def _claimed_begin(claims: Mapping[str, object]) -> datetime | None:
    """Return the later one of the times at which a token says that it was issued and becomes valid (aware UTC)."""
    stated = [claims.get("iat"), claims.get("nbf")]
    found = [time for time in stated if isinstance(time, int | float) and not isinstance(time, bool)]
    try:
        return datetime.fromtimestamp(max(found), UTC) if found else None
    except (ValueError, OverflowError, OSError):
        return None
