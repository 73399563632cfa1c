"""Whom a call is attributed to: the caller, or somebody whom a delegating service names in `x-user-*` headers.

Attribution is for the audit; it never changes what may be read.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.errors import PermissionDenied, UsageError
from micromegas_jupyter.server.headers import Headers

_UNKNOWN = "unknown"
_SERVICE_ACCOUNT = "service-account"
_MAX_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who is behind a call; `service_account_name` is the delegating API key's name."""

    user: str
    email: str
    name: str | None = None
    service_account_name: str | None = None


def resolve_attribution(caller: AuthContext, headers: Headers) -> Attribution:
    """Return whom the call is attributed to."""
    claimed_id, claimed_email, claimed_name = (
        _decoded(headers, name) for name in ("x-user-id", "x-user-email", "x-user-name")
    )
    if caller.auth_type is AuthType.NONE:
        return Attribution(user=claimed_id or _UNKNOWN, email=claimed_email or _UNKNOWN, name=claimed_name)
    if caller.auth_type is AuthType.API_KEY and caller.may_delegate:
        return Attribution(
            user=claimed_id or caller.subject,
            email=claimed_email or _SERVICE_ACCOUNT,
            name=claimed_name,
            service_account_name=caller.subject if claimed_id or claimed_email else None,
        )
    if (claimed_id or caller.subject) != caller.subject or _is_other_email(claimed_email, caller):
        raise PermissionDenied("The call names another user than the one who is signed in.", reason="impersonation")
    fallback = _SERVICE_ACCOUNT if caller.auth_type is AuthType.API_KEY else _UNKNOWN
    return Attribution(user=caller.subject, email=caller.email or fallback, name=claimed_name)


def _is_other_email(claimed: str | None, caller: AuthContext) -> bool:
    return claimed is not None and caller.email is not None and claimed != caller.email


def _decoded(headers: Headers, name: str) -> str | None:
    """Return a percent-encoded header's text; what does not decode stays as it was sent."""
    values = headers.get(name, ())
    if len(values) > 1:
        raise UsageError(f"The header {name} is there {len(values)} times.", remedy="Send it once.")
    if not values or not values[0]:
        return None
    try:
        text = unquote(values[0], errors="strict")
        is_readable = text.isprintable()
    except UnicodeDecodeError:
        text = values[0]
        is_readable = text.isprintable() and text.isascii()
    if not is_readable or len(text) > _MAX_CHARACTERS:
        raise UsageError(
            f"The header {name} is not a name that can be shown.",
            remedy=f"Send at most {_MAX_CHARACTERS} printable characters, percent-encoded in UTF-8.",
        )
    return text
