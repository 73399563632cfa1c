"""The state of a sign-in that is shown: what changes it, what it offers, and its text."""

from __future__ import annotations

import enum
import html
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from micromegas_jupyter.auth.flows.jupyter import START_PATH
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable, ServerUnavailable
from micromegas_jupyter.notebook.login.connections import PersonalProvider
from micromegas_jupyter.notebook.shell import cut, host_text, printable, shown_name, time_text, where_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from micromegas_jupyter.client.commands import ServerIdentity
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.connections import Login

CODE_WARNING = "Only type it if you started this."
MAX_SHOWN_GROUPS = 32
_MAX_CODE_CHARACTERS = 64
_START_PATH = re.compile(rf"/(?!/)[\x21-\x7e]*{START_PATH}[A-Za-z0-9_.-]+", re.ASCII)
_MAX_DETAIL_CHARACTERS = 300
WRAPPED = (
    "The wrapper's client is used (MICROMEGAS_PYTHON_MODULE_WRAPPER is set). It signs in by itself; signing in here "
    "would change nothing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOffer:
    """What the person has to do while a sign-in waits: a page to open, and perhaps a code to enter there."""

    flow: Flow
    address: str = field(repr=False)  # a path where it is the Jupyter server's own
    user_code: str = field(default="", repr=False)
    scan_address: str = field(default="", repr=False)  # holds the code, for another device's camera; never opened here


def offer_of(login: Login) -> SignInOffer:
    """Return what the person has to do for a sign-in."""
    if login.flow is Flow.DEVICE:
        return SignInOffer(
            flow=Flow.DEVICE,
            address=_web_address(login.verification_uri),
            user_code=cut(printable(login.user_code or ""), _MAX_CODE_CHARACTERS),
            scan_address=_web_address(login.verification_uri_complete),
        )
    start_url = login.start_url or ""
    # A path: the kernel need not know the address under which a browser reaches its server.
    is_path = login.flow is Flow.REDIRECT and _START_PATH.fullmatch(start_url)
    return SignInOffer(flow=login.flow, address=start_url if is_path else _web_address(start_url))


def _web_address(address: str | None) -> str:
    # Only such an address becomes a link.
    return "" if address is None or not address.startswith(("http://", "https://")) else printable(address)


def _offer_line(state: IdentityState, offer: SignInOffer, until: str) -> str:
    if offer.flow is Flow.PASTE:
        hint = "When the browser ends at an address that does not load, copy that address and paste it below."
        return f"Sign in at {state.issuer}: open {offer.address}{until}. {hint}"
    lead, what = ("Sign in to continue", "cell") if state.is_awaited else ("Sign in", "notebook")
    if offer.flow is Flow.DEVICE:
        do = f"go to {offer.address} and type {offer.user_code}{until}. {CODE_WARNING}"
    else:
        where = " of this Jupyter server" if offer.address.startswith("/") else ""
        do = f"open {offer.address}{where}{until}."
    interrupt = "; interrupt to stop waiting" if state.is_awaited else ""
    return f"{lead} at {state.issuer}: {do} This {what} continues by itself{interrupt}."


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


_HAS_TOKEN = frozenset({IdentityStatus.SIGNED_IN, IdentityStatus.RENEWAL_FAILED, IdentityStatus.OFFLINE})


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityState:
    """The state of a sign-in that is shown; never with a token in it, and with an address only while it waits.

    `is_personal`: a person signed in, `through` JupyterHub or here. `groups` are the token's until the server answers.
    `ends_at` is the end of the token, or of the time to sign in (aware UTC). `detail` is what the status does not say,
    `help` what to do when the person comes back without a sign-in; `is_awaited` says that a cell waits for one.
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
    is_awaited: bool = False
    detail: str = ""
    help: str = ""

    @property
    def has_token(self) -> bool:
        """Whether there was a token that worked when the state was last updated."""
        return self.status in _HAS_TOKEN


def identity_lines(state: IdentityState, *, now: datetime) -> list[str]:
    """Return the state as text, one sentence per line."""
    server_line = f"{state.server}: {state.server_line}" if state.server_line else ""
    lines = (_main_line(state, now), state.detail, state.help, server_line, _rights_line(state))
    return [line for line in lines if line]


def lines_as_html(lines: Sequence[str], *, offer: SignInOffer | None = None) -> str:
    """Return the lines as a paragraph with a link; no QR code, because a page that is reloaded saves it as it was."""
    parts = ["<br>".join(html.escape(line) for line in lines)]
    if offer is not None and offer.address:
        label = "Sign in" if not offer.user_code else "Open the page"
        link = f'<a href="{html.escape(offer.address)}" target="_blank" rel="noopener noreferrer">{label}</a>'
        parts.append(link)
    return f"<p>{'<br>'.join(parts)}</p>"


def _main_line(state: IdentityState, now: datetime) -> str:
    until = "" if state.ends_at is None else f" until {time_text(state.ends_at, now=now)}"
    match state.status:
        case IdentityStatus.NOT_CONFIGURED:
            return f"No sign-in is configured; {state.server} is used without one."
        case IdentityStatus.WRAPPED:
            return WRAPPED
        case IdentityStatus.WAITING:
            waiting = f"Waiting for you to sign in at {state.issuer}{until}."
            return waiting if state.offer is None else _offer_line(state, state.offer, until)
        case IdentityStatus.EXPIRED:
            return f"The sign-in{where_text(state.issuer, state.server)} has ended. Run %micromegas_login."
        case IdentityStatus.SIGNED_OUT:
            return f"Not signed in{where_text(state.issuer, state.server)}."
    name = f" as {state.name}" if state.name else ""
    address = f" ({state.email})" if state.email else ""
    issuer = f" at {state.issuer}" if state.issuer else ""
    through = f" through {state.through}" if state.through else ""
    renews = ", renews by itself" if state.renews and state.status is not IdentityStatus.RENEWAL_FAILED else ""
    return f"Signed in{through}{name}{address}{issuer}{until}{renews}."


def _rights_line(state: IdentityState) -> str:
    if not state.server_line:
        return ""  # only the server knows somebody's rights
    names = list(state.groups[:MAX_SHOWN_GROUPS])
    left = state.group_count - len(names)
    groups = ", ".join([*names, f"and {left} more"] if left > 0 else names)
    parts = ("admin" if state.is_admin else "", f"groups: {groups}" if state.group_count else "")
    return " · ".join(filter(None, parts))


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


def signed_out_state(settings: ClientSettings, *, detail: str = "", through: str = "") -> IdentityState:
    """Return the state when nobody is signed in; `through` would sign them in again without a click."""
    return IdentityState(
        status=IdentityStatus.SIGNED_OUT,
        server=host_text(settings.uri),
        issuer=host_text(settings.issuer or ""),
        detail=shown_detail(detail),
        through=through,
    )


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
    if not state.has_token:
        return state
    match error:
        case LoginRequired():
            ended = replace(state, status=IdentityStatus.EXPIRED, ends_at=None, renews=False, renews_at=None)
            detail = shown_detail(error.what)
            return replace(ended, detail=detail, is_admin=False, groups=(), group_count=0, server_line="")
        case ProviderUnavailable():
            detail = shown_detail(f"Could not renew: {error.what}")
            return replace(state, status=IdentityStatus.RENEWAL_FAILED, detail=detail)
        case ServerUnavailable():
            return replace(state, status=IdentityStatus.OFFLINE, detail=shown_detail(error.what), server_line="")
        case _:
            return state


def after_success(state: IdentityState, fresh: IdentityState) -> IdentityState:
    """Return the state after a call that worked: `fresh` of the provider, with what the server had said before."""
    # Somebody else may have signed in elsewhere meanwhile.
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
    """A button of the card."""

    SIGN_IN = "sign_in"
    SHOW_CODE = "show_code"
    CANCEL = "cancel"
    REFRESH = "refresh"
    SIGN_OUT = "sign_out"


def offered_actions(state: IdentityState) -> tuple[IdentityAction, ...]:
    """Return the card's buttons in this state, in their order."""
    match state.status:
        case IdentityStatus.SIGNED_OUT | IdentityStatus.EXPIRED:
            return (IdentityAction.SIGN_IN,) if state.issuer or state.through else ()
        case IdentityStatus.WAITING:
            flow = None if state.offer is None else state.offer.flow
            if flow is Flow.PASTE:
                return ()  # the cell below asks for the address and ends it
            is_code = flow is Flow.DEVICE
            return (IdentityAction.CANCEL,) if is_code else (IdentityAction.SHOW_CODE, IdentityAction.CANCEL)
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
