"""One notebook's session: the sign-in that is under way, connections, and the state that is shown.

Two notebooks that run at once both offer a sign-in: the person follows one link, and both continue. No token is ever in
the state. The address to open is in it only while the sign-in waits: it holds the OAuth state.
"""

from __future__ import annotations

import contextvars
import enum
import html
import re
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from threading import Lock, Thread
from typing import TYPE_CHECKING, cast

from micromegas_jupyter.auth.flows.jupyter import START_PATH
from micromegas_jupyter.auth.flows.select import is_worth_another_flow
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import (
    LoginRequired,
    MicromegasError,
    ProviderUnavailable,
    QueryCancelled,
    ServerUnavailable,
    UnsupportedRequest,
)
from micromegas_jupyter.notebook.formatting import (
    cut,
    host_text,
    printable,
    provider_text,
    seconds_text,
    show_as_lines,
    shown_name,
    time_text,
    where_text,
)
from micromegas_jupyter.notebook.login.connections import (
    Connection,
    Connections,
    Dependencies,
    NamedConnections,
    PersonalProvider,
    SettingsChoice,
)
from micromegas_jupyter.notebook.results.rows import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import has_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.client.commands import ServerIdentity
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.connections import FlowToUse, Login

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


# After the browser came back: discovery, token, keys and the token file's lock, each with a deadline of its own.
_COMPLETION_SECONDS = 90.0
CHECK_SECONDS = 1.0
"""The pause between two looks at the stored sign-in: a file of this machine, no network."""

_NO_BROWSER = "No browser opened here."


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Pending:
    settings: ClientSettings
    login: Login
    on_signed_in: Callable[[], None]
    replaces_hub: bool


class PendingSignIn:
    """The sign-in that is under way, if there is one.

    `_lock` guards `_pending` and `_overtaken` and is free while anybody waits.

    Args:
        dependencies: Begin sign-ins and read stored ones.
        shown: The state that the notebook shows.
        connections: Get the provider of a finished sign-in.
        state_of: The state of a provider that has just given a token.
        on_signed_in_alone: Called when a sign-in has ended with a token and no cell waited for it.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        *,
        shown: ShownState,
        connections: Connections,
        state_of: Callable[[ClientSettings, AuthProvider | None], IdentityState],
        on_signed_in_alone: Callable[[ClientSettings], None],
    ) -> None:
        self._dependencies = dependencies
        self._shown = shown
        self._connections = connections
        self._state_of = state_of
        self._on_signed_in_alone = on_signed_in_alone
        self._lock = Lock()
        self._pending: _Pending | None = None
        self._overtaken: Login | None = None

    @property
    def login(self) -> Login | None:
        """The sign-in that is under way; None when there is none."""
        pending = self._current()
        return None if pending is None else pending.login

    def begin(
        self,
        settings: ClientSettings,
        choice: FlowToUse,
        *,
        on_begun: Callable[[Login], bool] = lambda _: True,
        on_signed_in: Callable[[], None] = lambda: None,
    ) -> Login:
        """Start a sign-in in place of one that may be under way; returns at once, it continues by itself.

        Args:
            settings: At which provider, and as which application.
            choice: The flow, and the fallbacks to try after it.
            on_begun: Shows the sign-in; whether the person can use it, else the next fallback is tried.
            on_signed_in: Called once when it ends with a token.
        """
        flows, reason = [choice.flow, *choice.fallbacks], choice.reason
        while True:
            flow = flows.pop(0)
            # A Hub that should have signed the person in is asked again before a cell waits.
            replaces_hub = choice.flow is Flow.HUB and flow is not Flow.HUB
            try:
                login = self._begin(settings, flow, reason, on_signed_in=on_signed_in, replaces_hub=replaces_hub)
            except MicromegasError as error:
                if not flows or not is_worth_another_flow(error):
                    raise
                reason = f"Not by {flow.value}: {error.what}"
                continue
            if on_begun(login) or not flows:
                return login
            reason = _NO_BROWSER

    def _begin(
        self, settings: ClientSettings, flow: Flow, reason: str, *, on_signed_in: Callable[[], None], replaces_hub: bool
    ) -> Login:
        self.cancel()
        login = self._dependencies.begin_login(settings, flow)
        pending = _Pending(settings=settings, login=login, on_signed_in=on_signed_in, replaces_hub=replaces_hub)
        with self._lock:
            self._pending = pending
        self._shown.show(settings, waiting_state(settings, login, reason=reason))
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        login.on_done(lambda *_: context.run(self._finish_alone, pending))
        started = contextvars.copy_context()
        login.on_started(lambda redirect_uri: started.run(self._note_started, pending, redirect_uri))
        if stored_meanwhile(self._dependencies, settings) is None:  # or the person wants another one than there is
            watch_for_sign_in(login, lambda: self._adopt(pending, stored_meanwhile(self._dependencies, settings)))
        return login

    def wait_for(self, settings: ClientSettings, *, on_wait: Callable[[Login], None] | None) -> None:
        """Wait for the sign-in of these settings; returns at once when there is none. Raises as the sign-in failed."""
        pending = self._current()
        if pending is None or pending.settings != settings:
            return
        if pending.replaces_hub and self._adopt(pending, hub_provider(self._dependencies, settings)):
            return
        if on_wait is not None and not pending.login.done:
            on_wait(pending.login)
        self._finish(pending)

    def finish(self, login: Login) -> None:
        """Wait for the end of a sign-in that was begun here. Raises as it failed."""
        pending = self._current()
        if pending is not None and pending.login is login:
            self._finish(pending)
        elif not self._is_overtaken(login):
            login.result(0.0)  # it has ended already; a failure is still news to the caller

    def cancel(self) -> None:
        """End the sign-in that is under way, if there is one, and show that it is over."""
        pending = self._current()
        if pending is not None and self._end(pending):
            pending.login.cancel()
            self._shown.show(pending.settings, signed_out_state(pending.settings))

    def leave(self, settings: ClientSettings) -> None:
        """End the sign-in of these settings, if there is one: the person is signed in without it, which stays shown."""
        pending = self._current()
        if pending is not None and pending.settings == settings and self._end(pending, is_overtaken=True):
            pending.login.cancel()

    def _current(self) -> _Pending | None:
        with self._lock:
            return self._pending

    def _end(self, pending: _Pending, provider: AuthProvider | None = None, *, is_overtaken: bool = False) -> bool:
        """End a sign-in, with what it gave, unless it has ended before; whether it had not."""
        with self._lock:
            if self._pending is not pending:
                return False
            if provider is not None:
                # Before the sign-in counts as over, so that no cell makes a second connection meanwhile.
                self._connections.put(pending.settings, provider)
            self._pending = None
            if is_overtaken:
                self._overtaken = pending.login
            return True

    def _is_overtaken(self, login: Login) -> bool:
        with self._lock:
            return self._overtaken is login

    def _note_started(self, pending: _Pending, redirect_uri: str) -> None:
        """Show which address the provider has to know: one that does not tells the browser, and never this kernel."""
        if self._current() is pending:
            self._shown.change(pending.settings, lambda state: started_state(state, redirect_uri))

    def _finish_alone(self, pending: _Pending) -> None:
        """Finish on the sign-in's own thread, where the widget shows an error."""
        try:
            self._finish(pending)
        except MicromegasError:
            return
        self._on_signed_in_alone(pending.settings)

    def _finish(self, pending: _Pending) -> None:
        """Wait for the end; the first of the waiting cell and the sign-in's thread takes what it gave."""
        remaining_seconds = (pending.login.expires_at - self._dependencies.clock.now()).total_seconds()
        try:
            provider = pending.login.result(max(remaining_seconds, 0.0) + _COMPLETION_SECONDS)
        except MicromegasError as error:
            if self._is_overtaken(pending.login):
                return
            if self._end(pending):
                self._shown.show(pending.settings, failed_login_state(pending.settings, error))
            raise
        if self._end(pending, provider):
            self._shown.show(pending.settings, self._state_of(pending.settings, provider))
            pending.on_signed_in()

    def _adopt(self, pending: _Pending, provider: AuthProvider | None) -> bool:
        """Use a provider that signs the person in meanwhile, if there is one; whether this sign-in is over."""
        if provider is None or pending.login.done:
            return pending.login.done
        if self._end(pending, provider, is_overtaken=True):
            pending.login.cancel()
            self._shown.show(pending.settings, self._state_of(pending.settings, provider))
            self._on_signed_in_alone(pending.settings)
        return True


def watch_for_sign_in(login: Login, adopt: Callable[[], bool], *, pause_seconds: float = CHECK_SECONDS) -> None:
    """Call `adopt` after each pause, on a thread of its own, until it returns true or the sign-in has ended."""
    over = threading.Event()
    login.on_done(lambda *_: over.set())

    def check() -> None:
        while not over.wait(pause_seconds) and not adopt():
            pass

    # ipykernel finds the cell that a display belongs to in a context variable.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(check,), name="micromegas-elsewhere", daemon=True).start()


def stored_meanwhile(dependencies: Dependencies, settings: ClientSettings) -> PersonalProvider | None:
    """Return a person's stored sign-in whose token is still valid, without any network; None for any obstacle."""
    try:
        provider = dependencies.stored_provider(settings)
        if not isinstance(provider, PersonalProvider):
            return None
        ends_at = provider.identity().expires_at
    except MicromegasError:
        return None
    # One that had ended before this sign-in was begun is no news.
    return provider if ends_at > dependencies.clock.now() else None


def hub_provider(dependencies: Dependencies, settings: ClientSettings) -> PersonalProvider | None:
    """Return the provider that signs the person in without a click, as JupyterHub's does, after asking it for a token.

    None when there is none, or it has no token.
    """
    try:
        provider = dependencies.stored_provider(settings)
        if provider is None or not getattr(provider, "through", ""):
            return None
        provider.get_token()
    except MicromegasError:
        return None
    return provider if isinstance(provider, PersonalProvider) else None


class ShownState:
    """The state that is shown, and of which settings.

    `_lock` guards `_shown` and `_listeners` and is free while listeners are called. `_notifying` is held while they
    are, so that the last state that each gets is the newest.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._notifying = Lock()
        self._shown: tuple[ClientSettings, IdentityState] | None = None
        self._listeners: list[Callable[[IdentityState], None]] = []

    @property
    def state(self) -> IdentityState | None:
        """The state that is shown; None before there was any."""
        shown = self.shown
        return None if shown is None else shown[1]

    @property
    def shown(self) -> tuple[ClientSettings, IdentityState] | None:
        """The state that is shown, with its settings; None before there was any."""
        with self._lock:
            return self._shown

    def subscribe(self, listener: Callable[[IdentityState], None]) -> None:
        """Have `listener` called after every change; it may be on another thread."""
        with self._lock:
            self._listeners.append(listener)

    def show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        """Show the state of these settings from now on, and return it."""
        with self._lock:
            self._shown = (settings, state)
        self._notify()
        return state

    def change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change the state in one step, if it is that of these settings; nobody is notified when it stays the same."""
        with self._lock:
            if self._shown is None or self._shown[0] != settings:
                return
            changed = change(self._shown[1])
            if changed == self._shown[1]:
                return
            self._shown = (settings, changed)
        self._notify()

    def _notify(self) -> None:
        with self._notifying:
            with self._lock:
                listeners = list(self._listeners)
                state = None if self._shown is None else self._shown[1]
            if state is not None:
                for listener in listeners:
                    listener(state)


_SIGNED_OUT_LOCALLY = (
    "This notebook has forgotten the token that {through} gave it. You stay signed in there until you log out of the "
    "Hub; %micromegas_login signs you in here again."
)


class NotebookSession:
    """The sign-in that is under way, the connections, and the state that is shown.

    Only cells, which run one after the other, choose settings. `close` ends everything.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.shown = ShownState()
        self.choice = SettingsChoice()
        self.connections = Connections(dependencies, self._note_renewal)
        self.sign_in = PendingSignIn(
            dependencies,
            shown=self.shown,
            connections=self.connections,
            state_of=self._state_of,
            on_signed_in_alone=self.fetch_identity_later,
        )

    def settings(self, profile: str | None = None) -> ClientSettings:
        """Return the settings of `profile`, else those that were last chosen, else the configured ones."""
        return self.choice.read(self.dependencies.load_settings, profile=profile)

    @property
    def state(self) -> IdentityState | None:
        """The state that is shown; None before there was any."""
        return self.shown.state

    def connection(self, settings: ClientSettings, *, on_wait: Callable[[Login], None] | None = None) -> Connection:
        """Return the connection of these settings; waits for their sign-in, if one is under way.

        Args:
            settings: Which server, and as whom.
            on_wait: Called with the sign-in once, before the wait.
        """
        self.sign_in.wait_for(settings, on_wait=on_wait)
        return self.connections.get(settings)

    def signed_in(self, settings: ClientSettings) -> IdentityState:
        """Return who is signed in, after renewing the token if needed; raises as `connection` and `renew` do."""
        try:
            provider = self.connections.get(settings).provider
            if provider is not None:
                provider.get_token()
            return self.shown.show(settings, self._state_of(settings, provider))
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise

    def fetch_identity(self, settings: ClientSettings) -> IdentityState:
        """Ask the server who the caller is, and show its answer with the time it took."""
        clock = self.dependencies.clock
        try:
            connection = self.connections.get(settings)
            started = clock.monotonic()
            try:
                answer = connection.client.whoami()
            except UnsupportedRequest:
                answer = None
            seconds = clock.monotonic() - started
            state = after_answer(self._state_of(settings, connection.provider), answer, seconds)
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise
        return self.shown.show(settings, state)

    def fetch_identity_later(self, settings: ClientSettings) -> None:
        """Ask the server who the caller is, on a thread; the answer or the failure is shown."""

        def fetch() -> None:
            with suppress(MicromegasError):
                self.fetch_identity(settings)

        context = contextvars.copy_context()
        Thread(target=context.run, args=(fetch,), name="micromegas-whoami", daemon=True).start()

    def renew(self, settings: ClientSettings) -> bool:
        """Renew the token of whoever is signed in; returns whether that brought a new one.

        A token that is still valid is used on when it cannot be renewed. API keys and service accounts have nothing
        that a person would renew.
        """
        try:
            provider = self.connection(settings).provider
        except LoginRequired as error:
            self.note_failure(settings, error)
            raise
        if not isinstance(provider, PersonalProvider):
            return False
        try:
            before = provider.get_token()
            provider.renew()
            is_new = provider.get_token() != before
        except MicromegasError as error:
            try:
                provider.get_token()
            except MicromegasError as worse:
                self.note_failure(settings, worse)
            else:
                if isinstance(error, LoginRequired):
                    self.note_success(settings, provider)  # shows that nothing renews the token any more
            raise
        self.note_success(settings, provider)
        return is_new

    def notice(self, settings: ClientSettings) -> str | None:
        """Return the server's last notice about the credential; None when there is none."""
        connection = self.connections.current(settings)
        return None if connection is None else connection.notices.newest()

    def logout(self, settings: ClientSettings, *, end_session: bool = False) -> str:
        """End the sign-ins of these settings' profile, and one under way, and return a report in one line.

        Args:
            settings: Whose sign-ins.
            end_session: Whether to end the person's session at the provider, too.
        """
        self.sign_in.cancel()
        through = ""
        with suppress(LoginRequired):
            provider = self.connections.get(settings).provider
            if not isinstance(provider, PersonalProvider):
                return f"There is no sign-in to end: {self._other_credential(provider)}."
            through = getattr(provider, "through", "")
        # First, so that no renewal runs beside it.
        self.connections.drop_profile(settings.profile)
        ended = self.dependencies.logout(settings, end_session)
        report = printable(str(ended))
        if through:
            self.connections.sign_out_locally(settings.profile)
            # A sign-in of the person's own was ended, too, and is worth a mention.
            other = f" {report}" if end_session or getattr(ended, "was_signed_in", False) else ""
            report = f"{_SIGNED_OUT_LOCALLY.format(through=through)}{other}"
        self.shown.show(settings, signed_out_state(settings, through=through))
        return report

    def note_failure(self, settings: ClientSettings, error: MicromegasError) -> None:
        """Update the shown state after a call that failed; an ended sign-in is looked up afresh next time."""
        if isinstance(error, LoginRequired):
            self.connections.drop(settings)
        self.shown.change(settings, lambda state: after_failure(state, error))

    def note_success(self, settings: ClientSettings, provider: AuthProvider | None) -> None:
        """Update the shown state after a call that worked: the token may have been renewed."""
        # A query that worked does not fail for what is shown beside it.
        with suppress(MicromegasError):
            fresh = self._state_of(settings, provider)
            self.shown.change(settings, lambda state: after_success(state, fresh))

    def close(self) -> None:
        """End a sign-in under way and close all clients."""
        self.sign_in.cancel()
        self.connections.close()

    def _note_renewal(self, settings: ClientSettings, provider: AuthProvider, error: MicromegasError | None) -> None:
        """Show the outcome of a renewal that no cell asked for."""
        connection = self.connections.current(settings)
        if connection is None or connection.provider is not provider:
            return  # it ended meanwhile
        if error is None:
            self.note_success(settings, provider)
        else:
            # The client stays open: a query that began with a valid token runs to its end.
            self.shown.change(settings, lambda state: after_failure(state, error))

    def _state_of(self, settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
        if self.dependencies.is_wrapped():
            return wrapped_state(settings)
        return signed_in_state(settings, provider)

    def _other_credential(self, provider: AuthProvider | None) -> str:
        if self.dependencies.is_wrapped():
            return "the wrapper's client is used"
        return "none is configured" if provider is None else "a key or service account is used"


class CellConnections:
    """The connections that cells name by `--connection` and `--profile`; without either, the one in use."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: NamedConnections) -> None:
        self._shell = shell
        self._session = session
        self._named = named

    def names(self) -> tuple[str, ...]:
        """Return the values of `--connection`."""
        return tuple(self._named.all())

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell names."""
        return self._session.settings(profile) if connection is None else self._named.settings(connection)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell names; an error in the block counts as one of its server.

        The line shows the wait; the block finishes or clears it. An interrupt ends the wait (`QueryCancelled`), not
        the sign-in.
        """
        settings = self.settings(connection=connection, profile=profile)
        line: LiveLine = DisplayLine() if has_kernel(self._shell) else TerminalLine(sys.stdout)
        try:
            yield settings, self._wait(settings, line), line
        except MicromegasError as error:
            self._session.note_failure(settings, error)
            if isinstance(error, LoginRequired) and connection is not None:
                # A sign-in is for the connection in use.
                error.remedy = f"Run %micromegas_connect {connection}, then %micromegas_login."
            raise

    def _wait(self, settings: ClientSettings, line: LiveLine) -> Connection:
        clock = self._session.dependencies.clock
        started = clock.monotonic()

        def show_wait(login: Login) -> None:
            offer = offer_of(login)
            until = f" (until {time_text(login.expires_at, now=clock.now())})"
            waiting = waiting_line(offer, issuer=provider_text(settings.issuer), until=until)
            line.rewrite(f"⏳ {waiting} · interrupt to stop waiting", address=waiting_address(offer))

        try:
            return self._session.connection(settings, on_wait=show_wait)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise
