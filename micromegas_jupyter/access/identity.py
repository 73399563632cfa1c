"""From verified claims to who the caller is.

Whether the claims may be believed is decided before, in `oidc_validator`.
"""

from collections.abc import Iterable, Mapping

from micromegas_jupyter.access.admins import AdminRules
from micromegas_jupyter.contracts import AuthContext, AuthType
from micromegas_jupyter.oidc.claims import expiry_of

MAX_GROUPS = 256

# For display only, in upstream's order: the first that is there. Rights never follow from one of these alone.
_EMAIL_CLAIMS = (
    "verified_primary_email",
    "email",
    "https://micromegas.io/email",
    "preferred_username",
    "upn",
    "unique_name",
)
_CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")


def context_from_claims(claims: Mapping[str, object], *, issuer: str, admins: AdminRules) -> AuthContext:
    """Build the caller's context from claims that `check_claims` accepted and whose signature was verified.

    Raises:
        TokenProblem: `exp` is no time; `check_claims` refuses such claims.
    """
    subject = str(claims["sub"])
    verified_email = _text(claims, "email") if claims.get("email_verified") is True else None
    shown_email = _first_text(claims, _EMAIL_CLAIMS)
    return AuthContext(
        subject=subject,
        issuer=issuer,
        auth_type=AuthType.OIDC,
        email=shown_email,
        expires_at=expiry_of(claims),
        is_admin=admins.is_admin(issuer=issuer, subject=subject, verified_email=verified_email),
        name=_text(claims, "name"),
        email_verified=verified_email is not None and shown_email == verified_email,
        groups=_groups(claims),
        client_id=_first_text(claims, _CLIENT_CLAIMS),
    )


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    # Entra ID gives `verified_primary_email` as a list of addresses.
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def _first_text(claims: Mapping[str, object], names: Iterable[str]) -> str | None:
    return next((text for name in names if (text := _text(claims, name)) is not None), None)


def _groups(claims: Mapping[str, object]) -> tuple[str, ...]:
    realm_access = claims.get("realm_access")
    nested = realm_access.get("roles") if isinstance(realm_access, dict) else None
    found: dict[str, None] = {}
    for listed in (claims.get("groups"), claims.get("roles"), nested, claims.get("cognito:groups")):
        if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
            found.update(dict.fromkeys(listed))
    return tuple(found)[:MAX_GROUPS]
