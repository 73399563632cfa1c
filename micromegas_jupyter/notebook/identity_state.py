"""What is shown about a sign-in, and its sentences as text and HTML; how a browser draws it is the widget's job.

Nothing here is a secret: no token, code or state, only names, times and the address that starts a sign-in.
"""

import enum
import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from micromegas_jupyter.notebook.words import moment_text


class IdentityStatus(enum.StrEnum):
    """Where a sign-in stands."""

    NOT_CONFIGURED = "not_configured"
    SIGNED_OUT = "signed_out"
    WAITING = "waiting"
    SIGNED_IN = "signed_in"
    EXPIRED = "expired"
    RENEWAL_FAILED = "renewal_failed"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityState:
    """What is shown about a sign-in.

    Attributes:
        status: Where it stands.
        server: Host and port of the Flight SQL server.
        issuer: Host of the identity provider; empty when there is none.
        name: Who is signed in, as people call them.
        email: Their address, when known and different from the name.
        is_admin: Whether the server said that they are an administrator.
        server_line: What the server answered, in one line.
        ends_at: When the token, or the offer to sign in, ends (aware UTC).
        renews: Whether the token renews by itself.
        start_url: Where to sign in; only while waiting.
        detail: What happened, when the status alone does not say it.
    """

    status: IdentityStatus
    server: str
    issuer: str = ""
    name: str = ""
    email: str | None = None
    is_admin: bool = False
    server_line: str = ""
    ends_at: datetime | None = None
    renews: bool = False
    start_url: str | None = None
    detail: str = ""

    def remaining_seconds(self, now: datetime) -> float | None:
        """Return how long the token, or the offer to sign in, is still good; None when it does not end."""
        return None if self.ends_at is None else max((self.ends_at - now).total_seconds(), 0.0)


def identity_lines(state: IdentityState, *, now: datetime) -> list[str]:
    """Return the state in words, one sentence a line."""
    lines = [_main_line(state, now)]
    if state.detail:
        lines.append(state.detail)
    if state.server_line:
        lines.append(f"{state.server}: {state.server_line}")
    return lines


def lines_as_html(lines: Sequence[str], *, link_url: str | None = None) -> str:
    """Return the lines as a paragraph; `link_url` becomes a link that opens a page of its own."""
    text = "<br>".join(html.escape(line) for line in lines)
    if link_url is None or not link_url.startswith(("http://", "https://")):
        return f"<p>{text}</p>"
    link = f'<a href="{html.escape(link_url)}" target="_blank" rel="noopener noreferrer">Sign in</a>'
    return f"<p>{text}<br>{link}</p>"


def _main_line(state: IdentityState, now: datetime) -> str:
    match state.status:
        case IdentityStatus.NOT_CONFIGURED:
            return f"No sign-in is configured: {state.server} is used without one."
        case IdentityStatus.WAITING:
            until = "" if state.ends_at is None else f" until {moment_text(state.ends_at, now=now)}"
            return f"Sign in to {state.issuer}: open {state.start_url}{until}. This notebook continues by itself."
        case IdentityStatus.SIGNED_IN | IdentityStatus.RENEWAL_FAILED | IdentityStatus.OFFLINE:
            return _signed_in_line(state, now)
        case IdentityStatus.EXPIRED:
            return f"Signed out of {state.issuer}: the sign-in has ended. Run %micromegas_login."
        case IdentityStatus.SIGNED_OUT:
            return f"Not signed in to {state.issuer}."


def _signed_in_line(state: IdentityState, now: datetime) -> str:
    address = f" ({state.email})" if state.email else ""
    issuer = f" at {state.issuer}" if state.issuer else ""
    until = "" if state.ends_at is None else f" until {moment_text(state.ends_at, now=now)}"
    renews = ", renews by itself" if state.renews and state.status is not IdentityStatus.RENEWAL_FAILED else ""
    return f"Signed in as {state.name}{address}{issuer}{until}{renews}."
