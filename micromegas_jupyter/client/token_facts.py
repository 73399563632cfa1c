"""What a refused token says about itself, for the person who holds it.

Nothing here is verified and nothing is decided by it; a token that is not a JWT says nothing.
"""

import base64
import binascii
from datetime import UTC, datetime
from typing import Final, TypeGuard

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.flightsql.error_details import printable_text
from micromegas_jupyter.strict_json import JsonError, decode_strict_json

_MAX_FIELD_CHARACTERS: Final = 200
_JWT_PARTS: Final = 3


def describe_token(token: Secret, *, now: datetime) -> str:
    """Return sentences on a JWT's audience, issuer and end; empty when it is none."""
    claims = _read_claims(token.reveal())
    audience, issuer, ends = claims.get("aud"), claims.get("iss"), claims.get("exp")
    if isinstance(audience, list):
        audience = ", ".join(str(entry) for entry in audience)
    facts = []
    if isinstance(audience, str) and isinstance(issuer, str):
        facts.append(f'The token is for audience "{_short(audience)}", from {_short(issuer)}.')
    if _is_past(ends, now):
        facts.append(f"It ended at {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC.")
    return " ".join(facts)


def has_ended(token: Secret, *, now: datetime) -> bool:
    """Whether a JWT says that it ended; False when it is none."""
    return _is_past(_read_claims(token.reveal()).get("exp"), now)


def _is_past(ends: object, now: datetime) -> TypeGuard[int]:
    return type(ends) is int and 0 < ends <= int(now.timestamp())


def _read_claims(token: str) -> dict[str, object]:
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = decode_strict_json(payload.decode("utf-8"))
    except (binascii.Error, ValueError, JsonError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _short(text: str) -> str:
    return printable_text(text)[:_MAX_FIELD_CHARACTERS]
