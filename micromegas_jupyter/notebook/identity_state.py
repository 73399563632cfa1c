"""What is shown about a sign-in, and its sentences as text and HTML; how a browser draws it is the widget's job.

No token is ever here. What a sign-in asks of the person is here only while it waits.
"""

import enum
import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from micromegas_jupyter.notebook.sign_in_offer import SignInOffer, offer_line
from micromegas_jupyter.notebook.words import moment_text, place_text

MAX_SHOWN_GROUPS = 32

QR_LABEL = "QR code of the page to open, with the code filled in"

_WRAPPED = (
    "The wrapper's client is used (MICROMEGAS_PYTHON_MODULE_WRAPPER is set): it signs in by itself, and a sign-in here "
    "would change nothing."
)


class IdentityStatus(enum.StrEnum):
    """Where a sign-in stands."""

    NOT_CONFIGURED = "not_configured"
    WRAPPED = "wrapped"
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
        issuer: Host and port of the identity provider; empty when there is none.
        name: Who is signed in, as people call them; empty when the tokens do not say.
        email: Their address, when known and different from the name.
        subject: The issuer's name of them; empty when nobody is known.
        groups: Their groups: by the server's answer, before it by the token.
        group_count: How many they are in, when that is more than are named.
        is_personal: Whether a person signed in, who can also sign out.
        through: What signed them in, when they did not do it here: `JupyterHub`.
        is_admin: Whether the server said that they are an administrator.
        server_line: What the server answered, in one line.
        ends_at: When the token, or the offer to sign in, ends (aware UTC).
        renews: Whether the token renews by itself.
        renews_at: From when on it does (aware UTC); None when that is not known.
        offer: What the sign-in asks of the person; only while waiting.
        detail: What happened, when the status alone does not say it.
    """

    status: IdentityStatus
    server: str
    issuer: str = ""
    name: str = ""
    email: str | None = None
    subject: str = ""
    groups: tuple[str, ...] = ()
    group_count: int = 0
    is_personal: bool = False
    through: str = ""
    is_admin: bool = False
    server_line: str = ""
    ends_at: datetime | None = None
    renews: bool = False
    renews_at: datetime | None = None
    offer: SignInOffer | None = None
    detail: str = ""

    def remaining_seconds(self, now: datetime) -> float | None:
        """Return how long the token, or the offer to sign in, is still good; None when it does not end."""
        return _seconds_until(self.ends_at, now)

    def seconds_until_renewal(self, now: datetime) -> float | None:
        """Return how long it is until the token renews; None when it does not, or that is not known."""
        return _seconds_until(self.renews_at, now) if self.renews else None


def identity_lines(state: IdentityState, *, now: datetime) -> list[str]:
    """Return the state in words, one sentence a line."""
    server_line = f"{state.server}: {state.server_line}" if state.server_line else ""
    lines = (_main_line(state, now), state.detail, server_line, _rights_line(state))
    return [line for line in lines if line]


def lines_as_html(lines: Sequence[str], *, offer: SignInOffer | None = None) -> str:
    """Return the lines as a paragraph, with a link that opens a page of its own.

    There is no QR code, which only the widget draws: a page that was loaded again saves this text as it stood, whatever
    became of the sign-in.
    """
    parts = ["<br>".join(html.escape(line) for line in lines)]
    if offer is not None and offer.address:
        words = "Sign in" if not offer.user_code else "Open the page"
        link = f'<a href="{html.escape(offer.address)}" target="_blank" rel="noopener noreferrer">{words}</a>'
        parts.append(link)
    return f"<p>{'<br>'.join(parts)}</p>"


def _main_line(state: IdentityState, now: datetime) -> str:
    match state.status:
        case IdentityStatus.NOT_CONFIGURED:
            return f"No sign-in is configured: {state.server} is used without one."
        case IdentityStatus.WRAPPED:
            return _WRAPPED
        case IdentityStatus.WAITING:
            return _waiting_line(state, now)
        case IdentityStatus.SIGNED_IN | IdentityStatus.RENEWAL_FAILED | IdentityStatus.OFFLINE:
            return _signed_in_line(state, now)
        case IdentityStatus.EXPIRED:
            return f"The sign-in{place_text(state.issuer, state.server)} has ended. Run %micromegas_login."
        case IdentityStatus.SIGNED_OUT:
            return f"Not signed in{place_text(state.issuer, state.server)}."


def _rights_line(state: IdentityState) -> str:
    if not state.server_line:
        return ""  # what somebody may do is the server's to say
    names = list(state.groups[:MAX_SHOWN_GROUPS])
    left = state.group_count - len(names)
    groups = ", ".join([*names, f"and {left} more"] if left > 0 else names)
    parts = ("admin" if state.is_admin else "", f"groups: {groups}" if state.group_count else "")
    return " · ".join(part for part in parts if part)


def _waiting_line(state: IdentityState, now: datetime) -> str:
    until = "" if state.ends_at is None else f" until {moment_text(state.ends_at, now=now)}"
    if state.offer is None:
        return f"Waiting for you to sign in at {state.issuer}{until}."
    return offer_line(state.offer, issuer=state.issuer, until=until)


def _signed_in_line(state: IdentityState, now: datetime) -> str:
    name = f" as {state.name}" if state.name else ""
    address = f" ({state.email})" if state.email else ""
    issuer = f" at {state.issuer}" if state.issuer else ""
    until = "" if state.ends_at is None else f" until {moment_text(state.ends_at, now=now)}"
    through = f" through {state.through}" if state.through else ""
    renews = ", renews by itself" if state.renews and state.status is not IdentityStatus.RENEWAL_FAILED else ""
    return f"Signed in{through}{name}{address}{issuer}{until}{renews}."


def _seconds_until(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max((moment - now).total_seconds(), 0.0)
