"""What the magics need from the rest of the package, in one bundle; the default ones load when they are first used."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.select import ARGUMENT, FlowChoice, GraphicalBrowser, gather_facts
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Clock, process_variables
from micromegas_jupyter.errors import MicromegasError, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
    from micromegas_jupyter.auth.provider import PendingLogin
    from micromegas_jupyter.auth.tokens.manager import Identity, RenewableProvider
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.client.wrapper import WrappedClient

    Client = FlightSQLClient | WrappedClient
    Login = PendingLogin

# One attempt without a new token may only mean that another program is refreshing it.
_MAX_VAIN_ATTEMPTS = 2
_REMOTE_KERNEL_HINT = "Is the kernel on another machine than your browser? Run %micromegas_login --flow device."


@runtime_checkable
class PersonalProvider(AuthProvider, Protocol):
    """A provider that a person signed in for; service accounts and key files are not known to it."""

    def identity(self) -> Identity:
        """Return who is signed in."""
        ...

    def renew(self) -> None:
        """Renew the token now, where that is possible."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowToUse:
    """How a person signs in here.

    Attributes:
        flow: The flow.
        reason: Why not another one, for the person; empty when that is not worth a line.
        fallbacks: What to try, announced, when it turns out not to work.
    """

    flow: Flow
    reason: str = ""
    fallbacks: tuple[Flow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPreference:
    """The value of `--flow`: a flow, or `auto`; neither when the option was not given."""

    flow: Flow | None = None
    is_automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What the magics need from the rest of the package.

    Attributes:
        load_settings: Settings of a profile, None for the configured one, with variables that replace the
            environment's.
        stored_provider: The provider that needs no person; raises `LoginRequired`.
        choose_flow: How a person signs in from this shell; raises when nobody can, or not by the preferred flow.
        remember_flow: Stores a flow for later sign-ins of the settings' profile; None forgets it.
        begin_login: Starts a sign-in and returns at once.
        logout: Ends all sign-ins of the settings' profile, on request at the provider's page too; the text of what it
            returns is the line to show.
        renewal: Keeps a provider's token fresh and reports each change and failure; None for providers that need none.
        open_client: A client of the server in the settings.
        prompt: Asks the person for a line; a notebook does not show the answer.
        is_wrapped: Whether a wrapper module makes the client, which then signs in by itself.
        clock: The clock.
        browser: Opens the sign-in page when there is no notebook to show a link in.
    """

    load_settings: Callable[[str | None, Mapping[str, str]], ClientSettings]
    stored_provider: Callable[[ClientSettings], AuthProvider | None]
    choose_flow: Callable[[ClientSettings, object, FlowPreference], FlowToUse]
    remember_flow: Callable[[ClientSettings, Flow | None], None]
    begin_login: Callable[[ClientSettings, Flow], Login]
    logout: Callable[[ClientSettings, bool], object]
    renewal: Callable[[AuthProvider, Callable[[MicromegasError | None], None]], TokenRenewal | None]
    open_client: Callable[[ClientSettings, AuthProvider | None], Client]
    prompt: Callable[[str], str]
    is_wrapped: Callable[[], bool] = lambda: False
    clock: Clock = SYSTEM_CLOCK
    browser: Browser = SYSTEM_BROWSER


class TokenRenewal:
    """Keeps a provider's token fresh in the background.

    Args:
        provider: Whose token is kept fresh.
        clock: The clock.
        on_change: Called with None for every new token, whoever renewed it, and with an error when that fails; on a
            thread.
    """

    def __init__(
        self, provider: RenewableProvider, *, clock: Clock, on_change: Callable[[MicromegasError | None], None]
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._on_change = on_change
        self._known_due_at = provider.renewal_due_at()
        self._vain_attempts = 0
        # It calls this object in place of the provider, and knows it weakly.
        from micromegas_jupyter.auth.tokens.manager import BackgroundRenewal

        self._background = BackgroundRenewal(self, clock=clock, on_change=on_change)

    def start(self) -> None:
        """Begin; returns at once."""
        self._background.start()

    def stop(self) -> None:
        """End, after a renewal that is under way; returns at once."""
        self._background.stop()

    def get_token(self) -> str:
        """Return a token that is valid now, renewed if that was due and possible."""
        token = self._provider.get_token()
        due_at = self._provider.renewal_due_at()
        if due_at is None or due_at > self._clock.now():
            self._vain_attempts = 0
            return token
        self._vain_attempts += 1
        if self._vain_attempts >= _MAX_VAIN_ATTEMPTS:
            self._on_change(ProviderUnavailable("the identity provider gave no new token."))
        return token

    def renewal_due_at(self) -> datetime | None:
        """Return when `get_token` will renew; None when there is nothing to renew."""
        due_at = self._provider.renewal_due_at()
        if due_at != self._known_due_at:
            self._known_due_at = due_at
            self._on_change(None)
        return due_at


def default_dependencies() -> Dependencies:
    """Return the dependencies for a notebook or an IPython terminal."""
    return Dependencies(
        load_settings=lambda profile, variables: wiring.load_client_settings(profile=profile, options=variables),
        stored_provider=lambda settings: wiring.stored_provider(settings),  # noqa: PLW0108 - loads when it is called
        choose_flow=_choose_flow,
        remember_flow=lambda settings, flow: wiring.remember_flow(settings, flow),  # noqa: PLW0108 - as above
        begin_login=_LoginStarter().begin,
        logout=_logout,
        renewal=_renewal,
        open_client=_ClientOpener().open,
        prompt=_prompt,
        is_wrapped=lambda: wiring.is_wrapped(),  # noqa: PLW0108 - as above
        browser=GraphicalBrowser(),
    )


def _choose_flow(settings: ClientSettings, shell: object, preference: FlowPreference) -> FlowToUse:
    facts = gather_facts(shell=shell)
    choice = wiring.choose_flow(settings, facts=facts, wanted=preference.flow, is_automatic=preference.is_automatic)
    flow = wiring.require_flow(settings, choice)
    return FlowToUse(flow=flow, reason=flow_reason(choice, has_kernel=facts.has_kernel), fallbacks=choice.fallbacks)


def flow_reason(choice: FlowChoice, *, has_kernel: bool) -> str:
    """Return why a person signs in by this flow; empty for one they named, and where nobody would wonder."""
    if choice.origin == ARGUMENT:
        return ""
    if choice.skipped:
        return " ".join(f"Not by {skipped.flow.value}: {skipped.reason}." for skipped in choice.skipped)
    if choice.flow is Flow.REDIRECT:
        return ""
    if choice.flow is Flow.BROWSER:
        return _REMOTE_KERNEL_HINT if has_kernel else ""
    return choice.reason


class _LoginStarter:
    """Starts sign-ins; those by redirect share one object for the kernel, which `_lock` keeps from being made twice."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._redirects: RedirectLogins | None = None

    def begin(self, settings: ClientSettings, flow: Flow) -> Login:
        redirects = self._open_redirects() if flow is Flow.REDIRECT else None
        return wiring.begin_login(settings, flow=flow, redirects=redirects)

    def _open_redirects(self) -> RedirectLogins | None:
        from IPython.core.getipython import get_ipython

        from micromegas_jupyter.notebook.login.control_channel import listen, open_redirects

        kernel = getattr(get_ipython(), "kernel", None)
        with self._lock:
            self._redirects = self._redirects or open_redirects(kernel, process_variables())
            if self._redirects is not None:
                listen(kernel, self._redirects)
            return self._redirects


class _NoBrowser:
    """Opens nothing."""

    def open(self, _url: str) -> bool:
        return False


def _logout(settings: ClientSettings, end_session: bool) -> object:  # noqa: FBT001 - the shape of `Dependencies.logout`
    # A browser that opens where the kernel runs need not be the person's; the report then has the address.
    browser = _NoBrowser() if gather_facts().has_kernel else GraphicalBrowser()
    return wiring.logout(settings, end_session=end_session, browser=browser)


def _renewal(provider: AuthProvider, on_change: Callable[[MicromegasError | None], None]) -> TokenRenewal | None:
    # Service accounts renew when a token is needed: nobody watches how long it lasts. So does JupyterHub's sign-in:
    # messages to the widget outside of cells count as a person's activity, which keeps a server from being culled.
    if getattr(provider, "through", "") or not callable(getattr(provider, "renewal_due_at", None)):
        return None
    return TokenRenewal(cast("RenewableProvider", provider), clock=SYSTEM_CLOCK, on_change=on_change)


class _ClientOpener:
    """Opens clients; the deprecation of wrappers is printed once, without a position in the code."""

    def __init__(self) -> None:
        self._has_warned = False

    def open(self, settings: ClientSettings, provider: AuthProvider | None) -> FlightSQLClient | WrappedClient:
        from micromegas_jupyter.client.wrapper import DEPRECATION_NOTICE

        if not wiring.is_wrapped():
            return wiring.open_client(settings, provider)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FutureWarning)
            client = wiring.open_client(settings, provider)
        for warning in caught:
            if str(warning.message) != DEPRECATION_NOTICE:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            elif not self._has_warned:
                self._has_warned = True
                print(f"note: {DEPRECATION_NOTICE}")  # noqa: T201 - to the person
        return client


def _prompt(question: str) -> str:
    import getpass

    # A kernel puts its front end's password input in place of `getpass`.
    if not gather_facts().has_kernel and sys.stdin.isatty():
        from prompt_toolkit import prompt as prompt_hidden

        # A terminal that is read by lines takes no more than 1,024 to 4,096 characters; this one is not.
        return prompt_hidden(question, is_password=True)
    return getpass.getpass(question)
