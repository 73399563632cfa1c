"""One line about who is signed in, and one about what the server says.

What a program's own token says is for the person who looks; nothing here is verified or decided on.
"""

import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from micromegas_jupyter.client.calls import claimed_end, read_claims
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.urls import host_text
from micromegas_jupyter.errors import LoginRequired

if TYPE_CHECKING:
    from micromegas_jupyter.auth import Identity, OidcAuthProvider
    from micromegas_jupyter.auth.hub_token import HubTokenProvider
    from micromegas_jupyter.client.calls import ServerIdentity


# The first that is there: an address says most to a person. `azp` and `client_id` name the application.
_NAME_CLAIMS = ("email", "client_id", "azp", "appid", "sub")
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
    claims = read_claims(token) or {}
    texts = {name: _printable(claims.get(name)) for name in (*_NAME_CLAIMS, "iss")}
    return ServiceFacts(
        name=next((found for found in map(texts.get, _NAME_CLAIMS) if found), None),
        issuer=texts["iss"],
        expires_at=claimed_end(claims),
    )


def _printable(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable())[:_MAX_CHARACTERS]


_SECONDS_A_MINUTE = 60
_MINUTES_IN_TWO_HOURS = 120


def provider_now(provider: object) -> datetime:
    """Return the time by the clock that made the tokens, as far as the provider object knows it."""
    offset_seconds = getattr(provider, "clock_offset_seconds", 0.0)
    return SYSTEM_CLOCK.now() + timedelta(seconds=offset_seconds)


def identity_line(identity: "Identity", *, now: datetime) -> str:
    """Return name, address, provider and end of a person's sign-in in one line."""
    who = identity.name or identity.email or identity.subject
    address = f" <{identity.email}>" if identity.email and identity.email != who else ""
    renews = ", renews by itself" if identity.renews else ""
    return f"{who}{address} · {host_text(identity.issuer)} · {time_left(identity.expires_at, now)}{renews}"


def signed_in_line(provider: "OidcAuthProvider | HubTokenProvider", *, now: datetime) -> str:
    """Return what a sign-in that has just worked came to; tokens that name nobody do not make it a failure."""
    through = through_text(provider)
    try:
        return f"Signed in{through} as {identity_line(provider.identity(), now=now)}"
    except LoginRequired:
        return f"Signed in{through}."


def through_text(provider: object) -> str:
    """Return ` through JupyterHub` where that signed the person in; empty where they did it themselves."""
    through = getattr(provider, "through", "")
    return f" through {through}" if through else ""


def service_line(who: str, *, issuer: str, expires_at: datetime | None, now: datetime) -> str:
    """Return a program's name, provider and end of its token in one line."""
    ends = "" if expires_at is None else f" · {time_left(expires_at, now)}, renews by itself"
    return f"{who} (service account) · {host_text(issuer)}{ends}"


def server_line(uri: str, identity: "ServerIdentity", milliseconds: float) -> str:
    """Return whom the server takes the caller for, in one line."""
    who = identity.email or identity.subject
    admin = " (admin)" if identity.is_admin else ""
    return f"server {host_text(uri)} knows you as {who}{admin} · {milliseconds:.0f} ms"


def time_left(expires_at: datetime, now: datetime) -> str:
    """Return how long a token is still valid, in words."""
    seconds = int((expires_at - now).total_seconds())
    if seconds <= 0:
        return "token expired"
    if seconds < _SECONDS_A_MINUTE:
        return f"token valid {seconds} s"
    minutes = seconds // _SECONDS_A_MINUTE
    if minutes < _MINUTES_IN_TWO_HOURS:
        return f"token valid {minutes} min"
    return f"token valid {minutes // 60} h {minutes % 60} min"


def show_notice(text: str) -> None:
    """Print what the server says about the credential where it does not get among the results."""
    print(f"note: {text}", file=sys.stderr)
