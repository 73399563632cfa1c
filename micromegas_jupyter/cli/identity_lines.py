"""One line about who is signed in, and one about what the server says."""

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.auth import Identity
    from micromegas_jupyter.client import ServerIdentity


def identity_line(identity: "Identity") -> str:
    """Return name, address, issuer and end of a sign-in in one line."""
    who = identity.name or identity.email or identity.subject
    address = f" <{identity.email}>" if identity.email and identity.email != who else ""
    renews = ", renews by itself" if identity.renews else ""
    return f"{who}{address} · {identity.issuer} · token valid until {identity.expires_at:%H:%M} UTC{renews}"


def time_left(expires_at: datetime, now: datetime) -> str:
    """Return how long a token is still valid, in words."""
    seconds = int((expires_at - now).total_seconds())
    if seconds <= 0:
        return "expired"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"  # noqa: PLR2004 - seconds in a minute


def server_line(uri: str, identity: "ServerIdentity", milliseconds: float) -> str:
    """Return whom the server takes the caller for, in one line."""
    who = identity.email or identity.subject
    admin = " (admin)" if identity.is_admin else ""
    return f"server {uri} knows you as {who}{admin} · {milliseconds:.0f} ms"
