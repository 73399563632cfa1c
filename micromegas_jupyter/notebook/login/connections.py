"""The magics' dependencies on the rest of the package, and the connections of one notebook."""

from __future__ import annotations

import contextvars
import sys
from collections import deque
from dataclasses import dataclass, field, replace
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from micromegas_jupyter.auth.flows.base import ARGUMENT, FlowChoice, GraphicalBrowser, gather_runtime_info
from micromegas_jupyter.auth.tokens.source import BackgroundRenewal, RenewableProvider
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Browser, Clock, process_variables
from micromegas_jupyter.errors import LoginRequired, MicromegasError
from micromegas_jupyter.notebook.shell import sign_in_text
from micromegas_jupyter.wiring import client_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.auth import Identity, PendingLogin
    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
    from micromegas_jupyter.auth.provider import CompletedLogin
    from micromegas_jupyter.client.flight_client import FlightSQLClient, WrappedClient

    Client = FlightSQLClient | WrappedClient
    Login = PendingLogin | CompletedLogin

AUTOMATIC = "auto"
VARIABLE_OF_OPTION = MappingProxyType(
    {
        "issuer": "MICROMEGAS_OIDC_ISSUER",
        "client_id": "MICROMEGAS_OIDC_CLIENT_ID",
        "scope": "MICROMEGAS_OIDC_SCOPE",
        "audience": "MICROMEGAS_OIDC_AUDIENCE",
    }
)
"""The variable that each option of `%micromegas_login` overrides."""

_URI_VARIABLE = "MICROMEGAS_ANALYTICS_URI"
_MAX_CONNECTIONS = 8
_MAX_RETIRED = 8
_MAX_NOTICES = 8
_REMOTE_KERNEL_HINT = "Is the kernel on another machine than your browser? Run %micromegas_login --flow device."


@runtime_checkable
class PersonalProvider(AuthProvider, Protocol):
    """The provider for a user's sign-in, as opposed to a service account or key file."""

    def identity(self) -> Identity:
        """Return the signed-in user."""

    def renew(self) -> None:
        """Renew the token now, if possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowToUse:
    """The user's sign-in flow, the reason for skipping others (if worth mentioning), and the fallbacks."""

    flow: Flow
    reason: str = ""
    fallbacks: tuple[Flow, ...] = ()


class NotebookServices:
    """The magics' dependencies on the rest of the package, loaded on first use. Tests replace it."""

    clock: Clock = SYSTEM_CLOCK
    browser: Browser = GraphicalBrowser()
    load_settings = staticmethod(client_side.load_client_settings)
    stored_provider = staticmethod(client_side.stored_provider)
    is_wrapped = staticmethod(client_side.is_wrapped)
    open_client = staticmethod(client_side.open_client)
    remember_flow = staticmethod(client_side.remember_flow)

    def __init__(self) -> None:
        self._redirects: RedirectLogins | None = None  # the kernel's only handler of redirect sign-ins

    def choose_flow(
        self, settings: ClientSettings, shell: object, preference: str | None, *, is_clicked: bool = False
    ) -> FlowToUse:
        """Return how a user signs in from this shell; raise an error if no flow, or not the specified one, is possible.

        `is_clicked`: the user clicked a button. The button's message does not otherwise show that a user is present.
        """
        from micromegas_jupyter.wiring import sign_in as signing_in  # loaded when a user signs in

        facts, is_automatic = gather_runtime_info(shell=shell, allows_input=is_clicked or None), preference == AUTOMATIC
        wanted = None if preference is None or is_automatic else Flow(preference)
        choice = signing_in.choose_flow(settings, facts=facts, wanted=wanted, is_automatic=is_automatic)
        flow = signing_in.require_flow(settings, choice)
        return FlowToUse(
            flow=flow,
            reason=_flow_reason(choice, facts.has_kernel and hasattr(shell, "run_line_magic")),
            fallbacks=choice.fallbacks,
        )

    def begin_login(self, settings: ClientSettings, flow: Flow) -> Login:
        """Start a sign-in and return immediately."""
        from micromegas_jupyter.wiring import sign_in as signing_in  # loaded when a user signs in

        if flow is Flow.REDIRECT:
            from IPython.core.getipython import get_ipython

            from micromegas_jupyter.auth.flows.jupyter import listen, open_redirects

            kernel = getattr(get_ipython(), "kernel", None)
            self._redirects = self._redirects or open_redirects(kernel, process_variables())
            if self._redirects is not None:
                listen(kernel, self._redirects)
        return signing_in.begin_login(settings, flow=flow, redirects=self._redirects)

    def logout(self, settings: ClientSettings, *, end_session: bool) -> object:
        """End all sign-ins for the settings' profile; `str()` of the returned report is the message to show."""
        # A browser that opens on the kernel's machine may not be the user's, so the report includes the URL.
        browser = _NoBrowser() if gather_runtime_info().has_kernel else self.browser
        return client_side.logout(settings, end_session=end_session, browser=browser)

    def renewal(
        self, provider: AuthProvider, on_change: Callable[[MicromegasError | None], None]
    ) -> BackgroundRenewal | None:
        """Return the background renewal for a provider's token, or None if the provider doesn't need one."""
        # Service accounts renew when a token is needed, because nothing displays their expiry. So does JupyterHub's
        # sign-in: messages to the widget outside of cells count as user activity, which would keep an idle server from
        # being culled.
        if getattr(provider, "through", "") or not callable(getattr(provider, "renewal_due_at", None)):
            return None
        return BackgroundRenewal(cast("RenewableProvider", provider), clock=self.clock, on_change=on_change)

    def prompt(self, question: str) -> str:
        """Prompt the user for a line; a notebook doesn't show the input."""
        import getpass

        # A kernel replaces `getpass` with its front end's password input.
        if not gather_runtime_info().has_kernel and sys.stdin.isatty():
            from prompt_toolkit import prompt as prompt_hidden

            # Terminals limit an input line to between 1,024 and 4,096 characters; this function doesn't.
            return prompt_hidden(question, is_password=True)
        return getpass.getpass(question)


class _NoBrowser:
    def open(self, _url: str) -> bool:
        return False


def _flow_reason(choice: FlowChoice, has_kernel: bool) -> str:  # noqa: FBT001
    """Return why a user signs in with this flow, or "" if the user specified it or the reason is obvious."""
    if choice.origin == ARGUMENT:
        return ""
    if choice.skipped:
        return " ".join(f"Not by {skipped.flow.value}: {skipped.reason}." for skipped in choice.skipped)
    if choice.flow is Flow.REDIRECT:
        return ""
    if choice.flow is Flow.BROWSER:
        return _REMOTE_KERNEL_HINT if has_kernel else ""
    return choice.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChoice:
    """Which settings to use: a profile's or the configured ones, with overrides from variables and a server."""

    profile: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    as_service_account: bool = False
    uri: str | None = None
    settings: ClientSettings | None = None  # read when the choice was named; None: read them each time

    def with_options(
        self, *, profile: str | None, options: Mapping[str, str | None], as_service_account: bool | None = None
    ) -> SettingsChoice:
        """Return the choice for a magic's options: a profile resets everything; other options keep the profile."""
        variables = {VARIABLE_OF_OPTION[name]: value for name, value in options.items() if value}
        choice = self
        if profile is not None or variables:
            uri = self.uri if profile is None else None
            choice = SettingsChoice(profile=profile or self.profile, variables=variables, uri=uri)
        return choice if as_service_account is None else replace(choice, as_service_account=as_service_account)

    def read(self, dependencies: NotebookServices, *, profile: str | None = None) -> ClientSettings:
        """Read the settings; only those of `profile` if it is a different one."""
        if profile is not None and profile != self.profile:
            return dependencies.load_settings(profile=profile)
        server = {} if self.uri is None else {_URI_VARIABLE: self.uri}
        options = {**self.variables, **server}
        settings = self.settings or dependencies.load_settings(profile=self.profile, options=options)
        return replace(settings, as_service_account=self.as_service_account)


class Notices:
    """A server's notices about the credential, without duplicates; safe to use from several threads."""

    def __init__(self) -> None:
        self._new: deque[str] = deque(maxlen=_MAX_NOTICES)
        self.newest: str | None = None

    def add(self, text: str) -> None:
        """Add a notice."""
        self.newest = text
        self._new.append(text)

    def take_new(self) -> list[str]:
        """Return the notices that haven't been taken yet."""
        return [self._new.popleft() for _ in range(len(self._new))]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Connection:
    """A client, its token provider (if sign-in is configured), the background renewal, and the server's notices."""

    provider: AuthProvider | None
    client: Client
    renewal: BackgroundRenewal | None = None
    notices: Notices = field(default_factory=Notices)

    def close(self, *, keeps_readers: bool = False) -> None:
        """Stop the renewal and close the client; with `keeps_readers`, close it after its last reader finishes."""
        if self.renewal is not None:
            self.renewal.stop()
        self.client.close(keeps_readers=keeps_readers)


class Connections:
    """The open connections by their settings; if there are too many, the oldest is retired.

    A retired connection doesn't make new calls or renew its token. It is closed after its last reader has finished.
    """

    def __init__(
        self,
        dependencies: NotebookServices,
        on_renewal: Callable[[ClientSettings, AuthProvider, MicromegasError | None], None],
    ) -> None:
        self._dependencies = dependencies
        self._on_renewal = on_renewal
        self._lock = Lock()  # guards `_by_settings` and `_is_closed`
        self._by_settings: dict[ClientSettings, Connection] = {}
        self._retired: list[Connection] = []  # these may still have readers
        #: The providers of servers that belong to this notebook.
        self.local: dict[ClientSettings, AuthProvider] = {}
        #: The profiles that require a click to sign in.
        self.signed_out: set[str | None] = set()
        self._is_closed = False

    def get(self, settings: ClientSettings) -> Connection:
        """Return the connection for these settings, opened on first use without network I/O."""
        known = self.current(settings)
        if known is not None:
            return known
        where = sign_in_text(settings)
        try:
            provider = self.local.get(settings) or self._dependencies.stored_provider(settings)
        except LoginRequired as error:
            raise LoginRequired(f"Not signed in{where}.", remedy=error.remedy) from error
        through = getattr(provider, "through", "")
        if through and settings.profile in self.signed_out:
            raise LoginRequired(
                f"Not signed in{where}: you signed out here.",
                remedy=f"Run %micromegas_login to sign in through {through} again.",
            )
        return self.put(settings, provider, is_newer=False)

    def put(self, settings: ClientSettings, provider: AuthProvider | None, *, is_newer: bool = True) -> Connection:
        """Open a connection. One opened in the meantime may be in use and is kept, unless this provider is newer."""
        # ipykernel 7 uses a context variable to find the cell that a widget's message belongs to.
        context = contextvars.copy_context()
        client = self._dependencies.open_client(settings, provider)
        renewal = None
        if provider is not None:
            renewal = self._dependencies.renewal(
                provider, lambda error: context.run(self._on_renewal, settings, provider, error)
            )
        connection = Connection(provider=provider, client=client, renewal=renewal)
        client.on_notice(connection.notices.add)
        with self._lock:
            known = None if is_newer else self._by_settings.get(settings)
            if known is not None or self._is_closed:
                # A sign-in that finishes while the extension is being unloaded would leave this connection open.
                closing = [connection]
            else:
                closing = [self._by_settings.pop(settings)] if settings in self._by_settings else []
                self._by_settings[settings] = connection
                if len(self._by_settings) > _MAX_CONNECTIONS:
                    closing.append(self._by_settings.pop(next(iter(self._by_settings))))
                if renewal is not None:
                    renewal.start()
        self._retire(closing)
        return known or connection

    def current(self, settings: ClientSettings) -> Connection | None:
        """Return the connection for these settings if it is already open."""
        return self._by_settings.get(settings)

    def drop(self, is_wanted: Callable[[ClientSettings], bool], *, keeps_readers: bool = True) -> None:
        """Retire the connections whose settings match; without `keeps_readers`, also stop their readers."""
        with self._lock:
            dropped = [self._by_settings.pop(settings) for settings in list(self._by_settings) if is_wanted(settings)]
        if keeps_readers:
            self._retire(dropped)
        else:
            for connection in dropped:
                connection.close()

    def _retire(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.close(keeps_readers=True)
        with self._lock:
            self._retired = [one for one in (*self._retired, *connections) if one.client.is_in_use]
            kept = 0 if self._is_closed else _MAX_RETIRED  # `close` does not see connections that are retired after it
            closing = self._retired[: max(len(self._retired) - kept, 0)]
            del self._retired[: len(closing)]
        for connection in closing:
            connection.close()

    def close(self) -> None:
        """Close all connections, their running readers, and any connections that are opened later."""
        self._is_closed = True
        self.drop(lambda _: True, keeps_readers=False)
        with self._lock:
            closing, self._retired = self._retired, []
        for connection in closing:
            connection.close()
