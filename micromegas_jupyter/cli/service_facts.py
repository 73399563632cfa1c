"""What a program's own token says about it, for the person who looks; nothing here is verified or decided on."""

from dataclasses import dataclass
from datetime import datetime

from micromegas_jupyter.oidc.claims import expiry_of
from micromegas_jupyter.oidc.jws import TokenProblem, parse_token

# The first that is there: an address says most to a person. `azp` and `client_id` name the application.
_NAMES = ("email", "client_id", "azp", "appid", "sub")
_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """What the token says; None for what it does not, and for all of it when it is no JWT.

    Attributes:
        name: Whose it is.
        issuer: Who made it.
        expires_at: When it ends (aware UTC).
    """

    name: str | None = None
    issuer: str | None = None
    expires_at: datetime | None = None


def service_facts(token: str) -> ServiceFacts:
    """Return what a program's token says."""
    try:
        claims = parse_token(token).claims
    except TokenProblem:
        return ServiceFacts()
    try:
        expires_at = expiry_of(claims)
    except TokenProblem:
        expires_at = None
    texts = {name: _text(claims.get(name)) for name in (*_NAMES, "iss")}
    return ServiceFacts(
        name=next((found for found in map(texts.get, _NAMES) if found), None),
        issuer=texts["iss"],
        expires_at=expires_at,
    )


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable())[:_MAX_CHARACTERS]
