"""The state of a sign-in that is shown: its values, its transitions, and its sentences as text and HTML.

No token is ever in it. The address to open is in it only while the sign-in waits: it holds the OAuth state.
"""

from __future__ import annotations

import enum
import html
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from micromegas_jupyter.auth.flows.jupyter import START_PATH
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable, ServerUnavailable
from micromegas_jupyter.notebook.formatting import (
    cut,
    host_text,
    printable,
    provider_text,
    shown_name,
    time_text,
    where_text,
)
from micromegas_jupyter.notebook.login.dependencies import PersonalProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from micromegas_jupyter.client.commands import ServerIdentity
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.dependencies import Login


CODE_WARNING = "Only type it if you started this."
PASTE_HINT = "When the browser ends at an address that does not load, copy that address and paste it below."
_MAX_CODE_CHARACTERS = 64
_START_PATH = re.compile(rf"/(?!/)[\x21-\x7e]*{START_PATH}[A-Za-z0-9_.-]+", re.ASCII)
_WEB_SCHEMES = ("http://", "https://")
MAX_SHOWN_GROUPS = 32
QR_LABEL = "QR code of the page to open, with the code filled in"
_WRAPPED = (
    "The wrapper's client is used (MICROMEGAS_PYTHON_MODULE_WRAPPER is set). It signs in by itself; signing in here "
    "would change nothing."
)
_MAX_DETAIL_CHARACTERS = 300
_ATTEMPT_ENDED = "Run %micromegas_login to try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOffer:
    """What the person has to do while a sign-in waits.

    Attributes:
        flow: The flow.
        address: The page to open, as a path where it is the Jupyter server's own; empty when there is none.
        user_code: The code to enter there; empty unless the flow has one.
        scan_address: An address that already holds the code, for another device's camera; never opened here.
    """

    flow: Flow
    address: str = field(repr=False)
    user_code: str = field(default="", repr=False)
    scan_address: str = field(default="", repr=False)


def offer_of(login: Login) -> SignInOffer:
    """Return what the person has to do for a sign-in."""
    if login.flow is Flow.DEVICE:
        return SignInOffer(
            flow=Flow.DEVICE,
            address=_web_address(login.verification_uri),
            user_code=cut(printable(login.user_code or ""), _MAX_CODE_CHARACTERS),
            scan_address=_web_address(login.verification_uri_complete),
        )
    if login.flow is Flow.REDIRECT:
        return SignInOffer(flow=Flow.REDIRECT, address=_server_address(login.start_url))
    return SignInOffer(flow=login.flow, address=_web_address(login.start_url))


def offer_line(offer: SignInOffer, *, issuer: str, until: str) -> str:
    """Return in one line what to do; `until` is ` until 12:10 UTC`, or empty when that is not known."""
    if offer.flow is Flow.DEVICE:
        return (
            f"Sign in at {issuer}: go to {offer.address} and type {offer.user_code}{until}. {CODE_WARNING} "
            "This notebook continues by itself."
        )
    if offer.flow is Flow.PASTE:
        return f"Sign in at {issuer}: open {offer.address}{until}. {PASTE_HINT}"
    where = " of this Jupyter server" if offer.address.startswith("/") else ""
    return f"Sign in at {issuer}: open {offer.address}{where}{until}. This notebook continues by itself."


def waiting_line(offer: SignInOffer, *, issuer: str, until: str) -> str:
    """Return in one line what a cell waits for.

    After a page reload while the kernel is busy, this line is all that is left of the sign-in.
    """
    address = waiting_address(offer)
    if offer.flow is Flow.DEVICE:
        return f"waiting for you to type {offer.user_code} at {address or issuer}{until}"
    where = f": open {address}" if address else ""
    return f"waiting for you to sign in at {issuer}{where}{until}"


def waiting_address(offer: SignInOffer) -> str:
    """Return the address that a waiting cell shows; empty where it would hold the OAuth state."""
    return "" if offer.flow is Flow.PASTE else offer.address


def _server_address(address: str | None) -> str:
    # A path: the kernel need not know the address under which a browser reaches its server.
    if address is not None and _START_PATH.fullmatch(address):
        return address
    return _web_address(address)


def _web_address(address: str | None) -> str:
    # Only such an address becomes a link.
    return "" if address is None or not address.startswith(_WEB_SCHEMES) else printable(address)


class IdentityStatus(enum.StrEnum):
    """The stage of a sign-in."""

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
    """The state of a sign-in that is shown.

    Attributes:
        status: The stage of the sign-in.
        server: Host and port of the Flight SQL server.
        issuer: Host and port of the identity provider; empty when there is none.
        name: The person's display name; empty when the tokens do not have one.
        email: Their address, when known and different from the name.
        subject: The issuer's name of them; empty when nobody is known.
        groups: Their groups: from the server's answer, before it from the token.
        group_count: How many groups they are in, when that is more than are listed.
        is_personal: Whether a person signed in, who can also sign out.
        through: What signed them in, when they did not do it here: `JupyterHub`.
        is_admin: Whether the server said that they are an administrator.
        server_line: The server's answer, in one line.
        ends_at: When the token, or the time to sign in, ends (aware UTC).
        renews: Whether the token renews by itself.
        renews_at: When it will (aware UTC); None when that is not known.
        offer: What the person has to do; only while waiting.
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
        """Return how long the token, or the time to sign in, lasts; None when it does not end."""
        return _seconds_until(self.ends_at, now)

    def seconds_until_renewal(self, now: datetime) -> float | None:
        """Return the time until the token renews; None when it does not, or that is not known."""
        return _seconds_until(self.renews_at, now) if self.renews else None


def identity_lines(state: IdentityState, *, now: datetime) -> list[str]:
    """Return the state as text, one sentence per line."""
    server_line = f"{state.server}: {state.server_line}" if state.server_line else ""
    lines = (_main_line(state, now), state.detail, server_line, _rights_line(state))
    return [line for line in lines if line]


def lines_as_html(lines: Sequence[str], *, offer: SignInOffer | None = None) -> str:
    """Return the lines as a paragraph, with a link that opens a new page.

    Only the widget draws a QR code: after a reload a page saves this text as it was, whatever became of the sign-in.
    """
    parts = ["<br>".join(html.escape(line) for line in lines)]
    if offer is not None and offer.address:
        label = "Sign in" if not offer.user_code else "Open the page"
        link = f'<a href="{html.escape(offer.address)}" target="_blank" rel="noopener noreferrer">{label}</a>'
        parts.append(link)
    return f"<p>{'<br>'.join(parts)}</p>"


def _main_line(state: IdentityState, now: datetime) -> str:
    match state.status:
        case IdentityStatus.NOT_CONFIGURED:
            return f"No sign-in is configured; {state.server} is used without one."
        case IdentityStatus.WRAPPED:
            return _WRAPPED
        case IdentityStatus.WAITING:
            return _waiting_line(state, now)
        case IdentityStatus.SIGNED_IN | IdentityStatus.RENEWAL_FAILED | IdentityStatus.OFFLINE:
            return _signed_in_line(state, now)
        case IdentityStatus.EXPIRED:
            return f"The sign-in{where_text(state.issuer, state.server)} has ended. Run %micromegas_login."
        case IdentityStatus.SIGNED_OUT:
            return f"Not signed in{where_text(state.issuer, state.server)}."


def _rights_line(state: IdentityState) -> str:
    if not state.server_line:
        return ""  # only the server knows somebody's rights
    names = list(state.groups[:MAX_SHOWN_GROUPS])
    left = state.group_count - len(names)
    groups = ", ".join([*names, f"and {left} more"] if left > 0 else names)
    parts = ("admin" if state.is_admin else "", f"groups: {groups}" if state.group_count else "")
    return " · ".join(part for part in parts if part)


def _waiting_line(state: IdentityState, now: datetime) -> str:
    until = "" if state.ends_at is None else f" until {time_text(state.ends_at, now=now)}"
    if state.offer is None:
        return f"Waiting for you to sign in at {state.issuer}{until}."
    return offer_line(state.offer, issuer=state.issuer, until=until)


def _signed_in_line(state: IdentityState, now: datetime) -> str:
    name = f" as {state.name}" if state.name else ""
    address = f" ({state.email})" if state.email else ""
    issuer = f" at {state.issuer}" if state.issuer else ""
    until = "" if state.ends_at is None else f" until {time_text(state.ends_at, now=now)}"
    through = f" through {state.through}" if state.through else ""
    renews = ", renews by itself" if state.renews and state.status is not IdentityStatus.RENEWAL_FAILED else ""
    return f"Signed in{through}{name}{address}{issuer}{until}{renews}."


def _seconds_until(time: datetime | None, now: datetime) -> float | None:
    return None if time is None else max((time - now).total_seconds(), 0.0)


_HAS_TOKEN = frozenset({IdentityStatus.SIGNED_IN, IdentityStatus.RENEWAL_FAILED, IdentityStatus.OFFLINE})


def signed_in_state(settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
    """Return the state of a provider that has just given a token."""
    server, issuer = host_text(settings.uri), host_text(settings.issuer or "")
    if provider is None:
        return IdentityState(status=IdentityStatus.NOT_CONFIGURED, server=server)
    signed_in = IdentityState(status=IdentityStatus.SIGNED_IN, server=server)
    if not isinstance(provider, PersonalProvider):
        if settings.api_key_file is not None or settings.client_id is None:
            return replace(signed_in, name="the holder of an API key")
        return replace(signed_in, issuer=issuer, name=f"service account {shown_name(settings.client_id)}")
    try:
        identity = provider.identity()
    except LoginRequired:  # its tokens do not name the person
        return replace(signed_in, issuer=issuer, is_personal=True)
    through = getattr(provider, "through", "")
    name = shown_name(identity.name or identity.email or identity.subject)
    email = None if identity.email is None else shown_name(identity.email)
    renewal_due_at = getattr(provider, "renewal_due_at", None)
    # A provider like JupyterHub's renews when it is asked for a token, so there is no time for that.
    can_tell = not through and callable(renewal_due_at)
    return replace(
        signed_in,
        issuer=host_text(identity.issuer),
        name=name,
        email=None if email == name else email,
        subject=shown_name(identity.subject),
        groups=tuple(map(shown_name, identity.groups)),
        group_count=len(identity.groups),
        is_personal=True,
        through=through,
        ends_at=identity.expires_at,
        renews=identity.renews,
        renews_at=cast("Callable[[], datetime | None]", renewal_due_at)() if can_tell else None,
    )


def wrapped_state(settings: ClientSettings) -> IdentityState:
    """Return the state where a wrapper module makes the client."""
    return IdentityState(status=IdentityStatus.WRAPPED, server=host_text(settings.uri))


def waiting_state(settings: ClientSettings, login: Login, *, reason: str = "") -> IdentityState:
    """Return the state while a person is expected to sign in; `reason` says why by this flow, if that is news."""
    return IdentityState(
        status=IdentityStatus.WAITING,
        server=host_text(settings.uri),
        issuer=provider_text(settings.issuer),
        ends_at=login.expires_at,
        offer=offer_of(login),
        detail=shown_detail(reason),
    )


def started_state(state: IdentityState, redirect_uri: str) -> IdentityState:
    """Return the state once a browser was sent to the provider, which has to know the `redirect_uri`."""
    if state.status is not IdentityStatus.WAITING:
        return state
    return replace(
        state,
        detail=shown_detail(
            f"The browser will return to {redirect_uri}. If {state.issuer} rejects that address, have it registered "
            "there, or run %micromegas_login --flow device."
        ),
    )


def signed_out_state(settings: ClientSettings, *, detail: str = "", through: str = "") -> IdentityState:
    """Return the state when nobody is signed in; `through` would sign them in again without a click."""
    return IdentityState(
        status=IdentityStatus.SIGNED_OUT,
        server=host_text(settings.uri),
        issuer=host_text(settings.issuer or ""),
        detail=shown_detail(detail),
        through=through,
    )


def failed_login_state(settings: ClientSettings, error: MicromegasError) -> IdentityState:
    """Return the state after a sign-in that ended without a token."""
    return signed_out_state(settings, detail=f"{error.what} {_ATTEMPT_ENDED}")


def after_answer(state: IdentityState, answer: ServerIdentity | None, seconds: float) -> IdentityState:
    """Return a signed-in state with the server's answer to "who am I"; None when it does not offer that."""
    milliseconds = f"{seconds * 1000:.0f} ms"
    if answer is None:
        if state.status is IdentityStatus.WRAPPED:
            return state  # that client cannot ask, and nothing was sent
        return replace(state, server_line=f"connected; the server does not say as whom, {milliseconds}")
    who = shown_name(answer.email or answer.name or answer.subject)
    return replace(
        state,
        is_admin=answer.is_admin,
        groups=tuple(map(shown_name, answer.groups)) or state.groups,
        group_count=answer.group_count or state.group_count,
        server_line=f"connected as {who}, {milliseconds}",
    )


def after_failure(state: IdentityState, error: MicromegasError) -> IdentityState:
    """Return the state after a call that failed; unchanged by errors that do not concern the sign-in."""
    if state.status not in _HAS_TOKEN:
        return state
    match error:
        case LoginRequired():
            return replace(
                state,
                status=IdentityStatus.EXPIRED,
                detail=shown_detail(error.what),
                ends_at=None,
                renews=False,
                renews_at=None,
                is_admin=False,
                groups=(),
                group_count=0,
                server_line="",
            )
        case ProviderUnavailable():
            return replace(
                state, status=IdentityStatus.RENEWAL_FAILED, detail=shown_detail(f"Could not renew: {error.what}")
            )
        case ServerUnavailable():
            return replace(state, status=IdentityStatus.OFFLINE, detail=shown_detail(error.what), server_line="")
        case _:
            return state


def has_token(state: IdentityState | None) -> bool:
    """Whether there was a token that worked when the state was last updated."""
    return state is not None and state.status in _HAS_TOKEN


def after_success(state: IdentityState, fresh: IdentityState) -> IdentityState:
    """Return the state after a call that worked: `fresh` of the provider, with what the server had said before.

    That does not count for another person: somebody may have signed in elsewhere meanwhile.
    """
    if state.subject and state.subject != fresh.subject:
        return fresh
    return replace(
        fresh,
        is_admin=state.is_admin,
        groups=state.groups or fresh.groups,
        group_count=state.group_count or fresh.group_count,
        server_line=state.server_line,
    )


def shown_detail(text: str) -> str:
    """Return a detail fit to be shown: control characters written out, and cut when it is long."""
    return cut(printable(text), _MAX_DETAIL_CHARACTERS)


class IdentityAction(enum.StrEnum):
    """A button of the widget."""

    SIGN_IN = "sign_in"
    SHOW_CODE = "show_code"
    CANCEL = "cancel"
    REFRESH = "refresh"
    SIGN_OUT = "sign_out"


def offered_actions(state: IdentityState) -> tuple[IdentityAction, ...]:
    """Return the widget's buttons in this state, in their order."""
    match state.status:
        case IdentityStatus.SIGNED_OUT | IdentityStatus.EXPIRED:
            return (IdentityAction.SIGN_IN,) if state.issuer or state.through else ()
        case IdentityStatus.WAITING:
            flow = None if state.offer is None else state.offer.flow
            if flow is Flow.PASTE:
                return ()  # the cell below asks for the address and ends it
            return (
                (IdentityAction.CANCEL,) if flow is Flow.DEVICE else (IdentityAction.SHOW_CODE, IdentityAction.CANCEL)
            )
        case IdentityStatus.NOT_CONFIGURED | IdentityStatus.WRAPPED:
            return (IdentityAction.REFRESH,)
    if not state.is_personal or state.through:
        return (IdentityAction.REFRESH,)
    is_renewed = state.renews or state.ends_at is None
    return (*(() if is_renewed else (IdentityAction.SIGN_IN,)), IdentityAction.REFRESH, IdentityAction.SIGN_OUT)


def accepted_actions(state: IdentityState) -> frozenset[IdentityAction]:
    """Return the actions that are accepted in this state: a page whose countdown has ended offers a new sign-in."""
    is_renewable = state.is_personal or state.status is IdentityStatus.WAITING
    return frozenset((*offered_actions(state), *((IdentityAction.SIGN_IN,) if is_renewable else ())))
