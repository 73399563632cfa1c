"""A notebook's session: the pending sign-in, the connections, and the displayed state."""

from __future__ import annotations

import contextvars
import enum
import re
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.auth.flows.base import start_first
from micromegas_jupyter.auth.flows.jupyter import START_PATH
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.core.text import cut, printable, seconds_text
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderUnavailable,
    QueryCancelled,
    ServerUnavailable,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.notebook.login.connections import Connection, Connections, PersonalProvider, SettingsChoice
from micromegas_jupyter.notebook.results.rows import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import (
    has_kernel,
    host_text,
    is_attended,
    provider_text,
    show_as_lines,
    shown_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.client.commands import ServerIdentity
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.connections import FlowToUse, Login, NotebookServices

_MAX_CODE_CHARACTERS = 64
_START_PATH = re.compile(rf"/(?!/)[\x21-\x7e]*{START_PATH}[A-Za-z0-9_.-]+", re.ASCII)
_MAX_DETAIL_CHARACTERS = 300
CHECK_SECONDS = 1.0
"""The interval for checking the stored sign-in, a local file."""

_SIGNED_OUT_LOCALLY = (
    "This notebook has forgotten the token that {through} gave it. You stay signed in there until you log out of the "
    "Hub; %micromegas_login signs you in here again."
)


def _web_address(address: str | None) -> str:
    # Only http and https URLs become links.
    return "" if address is None or not address.startswith(("http://", "https://")) else printable(address)


class IdentityStatus(enum.StrEnum):
    """A sign-in's stage."""

    SIGNED_OUT = "signed_out"
    WAITING = "waiting"
    SIGNED_IN = "signed_in"
    FAILED = "failed"
    """Signed in, but the token could not be renewed, or the server could not be reached."""


WRAPPED_TITLE = "The wrapper's client is used."
_WRAPPED = "MICROMEGAS_PYTHON_MODULE_WRAPPER is set: it signs in automatically, and a sign-in here has no effect."


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityState:
    """The displayed state of a sign-in; it never contains a token, and it contains a URL only while waiting.

    `title` is set if no sign-in is needed. `is_personal`: a user signed in, `through` JupyterHub or here. `groups` are
    the token's until the server responds. `ends_at` is when the token or the sign-in expires (aware UTC). `detail`
    explains the status; `help` is for a user who returns without a sign-in. `is_awaited`: a cell waits for the
    sign-in. While waiting, there is an `address` to open (a path if it is the Jupyter server's own), and in some flows
    a `user_code` to enter there; `scan_address` contains it, for another device's camera, and is never opened here.
    """

    status: IdentityStatus
    server: str
    title: str = ""
    issuer: str = ""
    server_name: str = ""
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
    renews: bool | None = False
    flow: Flow | None = None
    address: str = field(default="", repr=False)
    user_code: str = field(default="", repr=False)
    scan_address: str = field(default="", repr=False)
    is_awaited: bool = False
    detail: str = ""
    help: str = ""

    @property
    def has_token(self) -> bool:
        """Whether there was a valid token when the state was last updated."""
        return self.status in {IdentityStatus.SIGNED_IN, IdentityStatus.FAILED}


def waiting_state(settings: ClientSettings, login: Login, *, detail: str = "") -> IdentityState:
    """Return the state of a pending sign-in, with the user's next step."""
    address = _web_address(login.verification_uri if login.flow is Flow.DEVICE else login.start_url)
    if login.flow is Flow.REDIRECT and _START_PATH.fullmatch(login.start_url or ""):
        # This is a path, because the kernel may not know its server's public URL.
        address = login.start_url or ""
    return IdentityState(
        status=IdentityStatus.WAITING,
        server=host_text(settings.uri),
        server_name=shown_name(settings.name or ""),
        issuer=provider_text(settings.issuer),
        ends_at=login.expires_at,
        flow=login.flow,
        address=address,
        user_code=cut(printable(login.user_code or ""), _MAX_CODE_CHARACTERS),
        scan_address=_web_address(login.verification_uri_complete),
        detail=shown_detail(detail),
    )


def signed_in_state(settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
    """Return the state of a provider that has just returned a token."""
    server, issuer = host_text(settings.uri), host_text(settings.issuer or "")
    signed_in = IdentityState(status=IdentityStatus.SIGNED_IN, server=server)
    if provider is None:
        return replace(signed_in, title="No sign-in is configured.", detail=f"{server} is used without one")
    if not isinstance(provider, PersonalProvider):
        if settings.api_key_file is not None or settings.client_id is None:
            return replace(signed_in, name="the holder of an API key")
        return replace(signed_in, issuer=issuer, name=f"service account {shown_name(settings.client_id)}")
    try:
        identity = provider.identity()
    except LoginRequired:  # its tokens don't contain the user's name
        return replace(signed_in, issuer=issuer, is_personal=True)
    through = getattr(provider, "through", "")
    name = shown_name(identity.name or identity.email or identity.subject)
    email = None if identity.email is None else shown_name(identity.email)
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
    )


def signed_out_state(settings: ClientSettings, *, detail: str = "", through: str = "") -> IdentityState:
    """Return the signed-out state; `through` would sign the user in again without a click."""
    return IdentityState(
        status=IdentityStatus.SIGNED_OUT,
        server=host_text(settings.uri),
        server_name=shown_name(settings.name or ""),
        issuer=host_text(settings.issuer or ""),
        detail=shown_detail(detail),
        through=through,
    )


def after_answer(state: IdentityState, answer: ServerIdentity | None, seconds: float) -> IdentityState:
    """Return a signed-in state with the server's identity response, which is None if the server doesn't support it."""
    milliseconds = f"{seconds * 1000:.0f} ms"
    if answer is None:
        if state.title == WRAPPED_TITLE:
            return state  # the client doesn't support the request, and didn't send anything
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
    """Return the state after a failed call; errors unrelated to the sign-in don't change it."""
    if not state.has_token:
        return state
    match error:
        case LoginRequired():
            return IdentityState(
                status=IdentityStatus.SIGNED_OUT,
                server=state.server,
                issuer=state.issuer,
                through=state.through,
                detail=shown_detail(error.what),
            )
        case ProviderUnavailable():
            detail = shown_detail(f"Could not renew: {error.what}")
            return replace(state, status=IdentityStatus.FAILED, detail=detail, server_line="")
        case ServerUnavailable():
            return replace(state, status=IdentityStatus.FAILED, detail=shown_detail(error.what), server_line="")
        case _:
            return state


def after_success(state: IdentityState, fresh: IdentityState) -> IdentityState:
    """Return the state after a successful call: the provider's `fresh` state, with the server's earlier response."""
    # Another user may have signed in elsewhere in the meantime.
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
    """Return a detail for display, with control characters escaped, and truncated if it is long."""
    return cut(printable(text), _MAX_DETAIL_CHARACTERS)


def offered_actions(state: IdentityState) -> tuple[str, ...]:
    """Return the card's buttons in this state, in order."""
    if state.status is IdentityStatus.SIGNED_OUT:
        return ("sign_in",) if state.issuer or state.through else ()
    if state.status is IdentityStatus.WAITING:
        if state.flow is Flow.PASTE:
            return ("sign_in",)  # the cell below prompts for the URL and completes the sign-in
        return ("sign_in", "cancel") if state.flow is Flow.DEVICE else ("sign_in", "show_code", "cancel")
    if not state.is_personal or state.through:
        return ("refresh",)
    is_renewed = state.renews or state.ends_at is None
    return ("refresh", "sign_out") if is_renewed else ("sign_in", "refresh", "sign_out")


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt:
    """A pending sign-in, until `over` is set."""

    settings: ClientSettings
    login: Login
    on_signed_in: Callable[[], None]
    over: Event = field(default_factory=Event)


class NotebookSession:
    """The pending sign-in, the connections, and the displayed state; `close` shuts everything down.

    `listener` receives each change of the state, on any thread, in order. `remind` is called while a sign-in waits,
    for pages that have missed its URL.
    """

    def __init__(self, dependencies: NotebookServices) -> None:
        self.dependencies = dependencies
        self.listener: Callable[[IdentityState], None] = lambda _: None
        self.remind: Callable[[], None] = lambda: None
        self.shown: tuple[ClientSettings, IdentityState] | None = None
        self._lock = Lock()
        self._notifying = Lock()
        self.choice = SettingsChoice()
        self.connections = Connections(dependencies, self._note_renewal)
        self.attempt: Attempt | None = None  # the most recent one
        self._beginning = Lock()  # held while one sign-in replaces another
        self._ending = Lock()

    def settings(self, profile: str | None = None) -> ClientSettings:
        """Return the settings of `profile`, falling back to the last used ones and then to the configured ones."""
        return self.choice.read(self.dependencies, profile=profile)

    @property
    def state(self) -> IdentityState | None:
        """The displayed state, or None if nothing has been displayed yet."""
        return None if self.shown is None else self.shown[1]

    def show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        """Make this the displayed state, and return it."""
        with self._lock:
            self.shown = (settings, state)
        self._notify()
        return state

    def change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change the state atomically if it belongs to these settings; the listener is notified only of changes."""
        with self._lock:
            before = self.shown
            if before is None or before[0] != settings:
                return
            self.shown = (settings, change(before[1]))
            if self.shown == before:
                return
        self._notify()

    def _notify(self) -> None:
        with self._notifying:  # so that the newest state is reported last
            if self.shown is not None:
                self.listener(self.shown[1])

    def connection(self, settings: ClientSettings, *, on_wait: Callable[[], None] = lambda: None) -> Connection:
        """Return the connection for these settings; if a sign-in is pending, call `on_wait` and wait for it."""
        while (attempt := self.pending(settings)) is not None:
            self._change_waiting(attempt, is_awaited=True)
            on_wait()
            try:
                self.finish(attempt)
            except MicromegasError:
                with self._beginning:  # a different flow may be replacing it
                    if self.pending(settings) is None:
                        raise
            finally:
                self._change_waiting(attempt, is_awaited=False)
        return self.connections.get(settings)

    def begin_sign_in(
        self, settings: ClientSettings, shell: object, preference: str | None = None, *, is_clicked: bool = False
    ) -> None:
        """Start a sign-in for a button or a query, neither of which can prompt for a URL."""
        choice = self.dependencies.choose_flow(settings, shell, preference, is_clicked=is_clicked)
        if choice.flow is Flow.PASTE:
            raise LoginRequired(
                "To sign in here, you need to paste a URL.", remedy="Run %micromegas_login in a separate cell."
            )
        fallbacks = tuple(flow for flow in choice.fallbacks if flow is not Flow.PASTE)
        self.sign_in(settings, replace(choice, fallbacks=fallbacks))

    def sign_in(
        self,
        settings: ClientSettings,
        choice: FlowToUse,
        *,
        on_begun: Callable[[Login], bool] = lambda _: True,
        on_signed_in: Callable[[], None] = lambda: None,
    ) -> Attempt:
        """Start a sign-in that continues in the background, replacing any pending one.

        `on_begun` shows the sign-in and returns whether the user can use it; if not, the next fallback is tried.
        `on_signed_in` is called once when the sign-in has succeeded.
        """
        attempts: list[Attempt] = []

        def begin(flow: Flow, reason: str) -> Login:
            with self._beginning:  # until it is shown; otherwise a replaced sign-in could be shown over its successor
                self.cancel()
                login = self.dependencies.begin_login(settings, flow)
                attempts.append(Attempt(settings=settings, login=login, on_signed_in=on_signed_in))
                self._follow(attempts[-1], reason)
            return login

        start_first(
            [choice.flow, *choice.fallbacks],
            reason=choice.reason,
            begin=begin,
            show=lambda login, _reason: on_begun(login),
        )
        return attempts[-1]

    def _follow(self, attempt: Attempt, reason: str) -> None:
        settings, login = attempt.settings, attempt.login
        self.attempt = attempt
        self.show(settings, waiting_state(settings, login, detail=reason))
        # ipykernel 7 uses a context variable to find the cell that a widget's message belongs to.
        context, started = contextvars.copy_context(), contextvars.copy_context()
        login.on_done(lambda *_: context.run(self._finish_in_background, attempt))
        login.on_started(lambda redirect_uri: started.run(self._note_started, attempt, redirect_uri))
        if self._stored_elsewhere(settings) is None:  # or the user requested a different sign-in
            start_thread(self._watch, attempt, name="micromegas-elsewhere")

    def finish(self, attempt: Attempt) -> None:
        """Wait for the outcome; the first thread to receive it displays it. Raises the sign-in's error."""
        settings = attempt.settings
        try:
            provider = attempt.login.result()
        except MicromegasError as error:
            if self._end(attempt):
                detail = f"{error.what} Try again here, or run %micromegas_login."
                self.show(settings, signed_out_state(settings, detail=detail))
            elif self.connections.current(settings) is not None:
                return  # another sign-in has succeeded
            raise
        if self._end(attempt, provider):
            attempt.on_signed_in()

    def pending(self, settings: ClientSettings) -> Attempt | None:
        """Return the pending sign-in for these settings."""
        attempt = self.attempt
        return attempt if attempt is not None and not attempt.over.is_set() and attempt.settings == settings else None

    def cancel(self) -> None:
        """Cancel any pending sign-in, and show that it is over."""
        attempt = self.attempt
        if attempt is not None and self._end(attempt):
            attempt.login.cancel()
            self.show(attempt.settings, signed_out_state(attempt.settings))

    def _end(self, attempt: Attempt, provider: AuthProvider | None = None) -> bool:
        """Finish a sign-in with its result, unless already finished; return whether this call finished it."""
        with self._ending:
            if attempt.over.is_set():
                return False
            if provider is not None:
                # Do this before the sign-in counts as over, so that no cell opens a second connection in the meantime.
                self.connections.put(attempt.settings, provider)
            attempt.over.set()
        if provider is not None:
            self.show(attempt.settings, self.state_of(attempt.settings, provider))
        return True

    def _note_started(self, attempt: Attempt, redirect_uri: str) -> None:
        """Note the redirect URI that must be registered, because providers report a missing one only to the browser."""
        issuer = provider_text(attempt.settings.issuer)
        text = (
            f"The browser returns to {redirect_uri}. If {issuer} rejects that address, have it registered there, or "
            "sign in with a code."
        )
        self._change_waiting(attempt, help=shown_detail(text))

    def _change_waiting(self, attempt: Attempt, **changes: Any) -> None:
        if not attempt.over.is_set():
            self.change(
                attempt.settings,
                lambda state: replace(state, **changes) if state.status is IdentityStatus.WAITING else state,
            )

    def _finish_in_background(self, attempt: Attempt) -> None:
        """Finish on the sign-in's own thread; the widget shows any error."""
        with suppress(MicromegasError):
            self.finish(attempt)
            self.fetch_identity_later(attempt.settings)

    def _watch(self, attempt: Attempt) -> None:
        """Check for a sign-in in another notebook or terminal, until one is found or this one has finished."""
        was_found = False
        while not attempt.over.wait(CHECK_SECONDS):
            provider = self._stored_elsewhere(attempt.settings)
            # A sign-in is stored shortly before it is reported as done.
            is_other, was_found = was_found and not attempt.login.done, provider is not None
            if provider is None or not is_other:
                # A page that has just drawn the card may have missed the URL, and with ipykernel 6, it cannot request
                # it while a cell runs.
                self.remind()
            elif self._end(attempt, provider):
                attempt.login.cancel()
                self.fetch_identity_later(attempt.settings)

    def _stored_elsewhere(self, settings: ClientSettings) -> PersonalProvider | None:
        """Return a user's stored sign-in with a valid token, without network I/O, or None."""
        with suppress(MicromegasError):
            provider, now = self.dependencies.stored_provider(settings), self.dependencies.clock.now()
            # A sign-in that finished before this one started isn't reported.
            if isinstance(provider, PersonalProvider) and provider.identity().expires_at > now:
                return provider
        return None

    def signed_in(self, settings: ClientSettings) -> IdentityState:
        """Return the signed-in user, renewing the token if needed; raises the errors of `connection` and `renew`."""
        with self._noted(settings):
            provider = self.connections.get(settings).provider
            if provider is not None:
                provider.get_token()
            return self.show(settings, self.state_of(settings, provider))

    def why_not_signed_in(self, settings: ClientSettings) -> MicromegasError | None:
        """Return why the user must sign in, or None; raise any error that a sign-in wouldn't fix."""
        try:
            self.signed_in(settings)
        except MicromegasError as error:
            if not isinstance(error, LoginRequired) and error.sign_in_service is None:
                raise
            return error
        return None

    def fetch_identity(self, settings: ClientSettings) -> IdentityState:
        """Fetch the caller's identity from the server, and show it with the response time."""
        clock, answer = self.dependencies.clock, None
        with self._noted(settings):
            connection = self.connections.get(settings)
            started = clock.monotonic()
            with suppress(UnsupportedRequest):
                answer = connection.client.whoami()
            seconds = clock.monotonic() - started
            state = after_answer(self.state_of(settings, connection.provider), answer, seconds)
        return self.show(settings, state)

    def fetch_identity_later(self, settings: ClientSettings) -> None:
        """Fetch the caller's identity from the server on a thread, and show the identity or the error."""

        def fetch() -> None:
            with suppress(MicromegasError):
                self.fetch_identity(settings)

        start_thread(fetch, name="micromegas-whoami")

    def renew(self, settings: ClientSettings) -> bool:
        """Renew the signed-in user's token, and return whether there is a new one."""
        with self._noted(settings):
            provider = self.connection(settings).provider
            if not isinstance(provider, PersonalProvider):
                return False
            before = provider.get_token()
        try:
            provider.renew()
        except LoginRequired:
            self.signed_in(settings)  # shows that the token is no longer renewed, or has also expired
            raise
        self.note_success(settings, provider)
        return provider.get_token() != before

    def logout(self, settings: ClientSettings, *, end_session: bool = False) -> str:
        """End all sign-ins for these settings' profile, including any pending one, and return a one-line report."""
        self.cancel()
        through = ""
        with suppress(LoginRequired):
            provider = self.connections.get(settings).provider
            if not isinstance(provider, PersonalProvider):
                other = "none is configured" if provider is None else "a key or service account is used"
                if self.dependencies.is_wrapped():
                    other = "the wrapper's client is used"
                return f"There is no sign-in to end: {other}."
            through = getattr(provider, "through", "")
        # Do this first, so that no renewal runs concurrently.
        self.connections.drop(lambda other: other.profile == settings.profile)
        ended = self.dependencies.logout(settings, end_session=end_session)
        report = printable(str(ended))
        if through:
            self.connections.signed_out.add(settings.profile)
            # The user's own sign-in was also ended, so mention it.
            other = f" {report}" if end_session or getattr(ended, "was_signed_in", False) else ""
            report = f"{_SIGNED_OUT_LOCALLY.format(through=through)}{other}"
        self.show(settings, signed_out_state(settings, through=through))
        return report

    def note_reader_failure(self, settings: ClientSettings, connection: Connection, error: MicromegasError) -> None:
        """Update the displayed state after a reader failed, unless its connection has been retired."""
        if self.connections.current(settings) is connection:
            self.note_failure(settings, error)

    def note_failure(self, settings: ClientSettings, error: MicromegasError) -> None:
        """Update the displayed state after a failed call; an expired sign-in will be reread next time."""
        if isinstance(error, LoginRequired):
            self.connections.drop(lambda other: other == settings)
        self.change(settings, lambda state: after_failure(state, error))

    def note_success(self, settings: ClientSettings, provider: AuthProvider | None) -> None:
        """Update the displayed state after a successful call, because the token may have been renewed."""
        # A display problem must not cause a successful query to fail.
        with suppress(MicromegasError):
            fresh = self.state_of(settings, provider)
            self.change(settings, lambda state: after_success(state, fresh))

    @contextmanager
    def _noted(self, settings: ClientSettings) -> Iterator[None]:
        try:
            yield
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise

    def state_of(self, settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
        """Return the state of a provider that has just returned a token."""
        if self.dependencies.is_wrapped():
            signed_in = IdentityState(status=IdentityStatus.SIGNED_IN, server=host_text(settings.uri))
            return replace(signed_in, title=WRAPPED_TITLE, detail=_WRAPPED)
        return signed_in_state(settings, provider)

    def close(self) -> None:
        """Cancel any pending sign-in and close all clients."""
        self.cancel()
        self.connections.close()

    def _note_renewal(self, settings: ClientSettings, provider: AuthProvider, error: MicromegasError | None) -> None:
        """Show the outcome of a renewal that no cell requested."""
        connection = self.connections.current(settings)
        if connection is None or connection.provider is not provider:
            return  # the sign-in ended in the meantime
        if error is None:
            self.note_success(settings, provider)
        else:
            # The client stays open, so that a query that started with a valid token can finish.
            self.change(settings, lambda state: after_failure(state, error))


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


class CellConnections:
    """The named connections; each name refers to the settings that were read when it was assigned."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._by_name: dict[str, SettingsChoice] = {}
        #: The MIME bundle and metadata of a cell that waits for a sign-in.
        self.notice: Callable[[], Any] = lambda: None

    def put(self, name: str, choice: SettingsChoice, settings: ClientSettings) -> None:
        """Assign a name to these settings."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'"{shown_name(name)}" is not a valid connection name.',
                remedy="Use letters, digits, _ and -, at most 63.",
            )
        self._by_name[name] = replace(choice, settings=settings)

    def forget(self, name: str) -> None:
        """Remove a name, if it exists."""
        self._by_name.pop(name, None)

    def choice(self, name: str) -> SettingsChoice:
        """Return the choice with this name."""
        if name in self._by_name:
            return self._by_name[name]
        nearest = get_close_matches(name, self._by_name, n=1)
        names = f"The named ones: {', '.join(self._by_name)}. " if self._by_name else ""
        remedy = f'Did you mean "{nearest[0]}"?' if nearest else f"{names}%micromegas_connect URI --as NAME names one."
        raise UsageError(f'There is no connection named "{shown_name(name)}".', remedy=remedy)

    def all(self) -> dict[str, ClientSettings]:
        """Return the settings for each name, in the order in which the names were assigned."""
        return {name: choice.settings for name, choice in self._by_name.items() if choice.settings is not None}

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell specifies."""
        if connection is None:
            return self._session.settings(profile)
        return self.choice(connection).read(self._session.dependencies)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell specifies; the `with` block must finish or clear the progress line."""
        settings = self.settings(connection=connection, profile=profile)
        line: LiveLine = DisplayLine() if has_kernel(self._shell) else TerminalLine(sys.stdout)
        try:
            yield settings, self._wait(settings, line), line
        except MicromegasError as error:
            self._session.note_failure(settings, error)
            if isinstance(error, LoginRequired) and connection is not None:
                # Sign-ins apply to the connection in use.
                error.remedy = f"Run %micromegas_connect {connection}, then %micromegas_login."
            raise

    def _wait(self, settings: ClientSettings, line: LiveLine) -> Connection:
        clock = self._session.dependencies.clock
        started = clock.monotonic()

        def show_card() -> None:
            notice = self.notice()
            if isinstance(line, DisplayLine) and notice is not None:
                line.show(*notice)

        try:
            if has_kernel(self._shell) and is_attended(self._shell):
                self._begin_sign_in_if_needed(settings)
            return self._session.connection(settings, on_wait=show_card)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except LoginFailed:
            raise  # the card remains, with the reason and a button
        except MicromegasError:
            line.clear()
            raise

    def _begin_sign_in_if_needed(self, settings: ClientSettings) -> None:
        """Start a sign-in that the cell will wait for, if a user is present and not signed in."""
        session = self._session
        if session.pending(settings) is not None:
            return
        try:
            provider = session.connections.get(settings).provider
            if isinstance(provider, PersonalProvider):
                provider.get_token()
        except LoginRequired as error:
            session.note_failure(settings, error)
            # A service that should have signed the user in has reported why it didn't, or the user has signed out here.
            has_service = error.sign_in_service is not None or settings.profile in session.connections.signed_out
            if has_service or settings.as_service_account:
                raise
            session.begin_sign_in(settings, self._shell)
