"""The dependencies of the magics, as protocols and one bundle, and the real ones, each loaded when it is first used.

A test, or a front end with another way to sign in, passes a different one.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.background_renewal import BackgroundRenewal, RenewableProvider
from micromegas_jupyter.auth.flow_choice import ARGUMENT, FlowChoice
from micromegas_jupyter.auth.graphical_browser import GraphicalBrowser
from micromegas_jupyter.auth.surroundings import gather_facts
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Clock, process_variables
from micromegas_jupyter.errors import MicromegasError, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from micromegas_jupyter.auth import Identity, PendingLogin
    from micromegas_jupyter.auth.given_sign_in import GivenSignIn
    from micromegas_jupyter.auth.hub_token import HubTokenProvider
    from micromegas_jupyter.auth.redirect_desk import RedirectDesk
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.client.wrapper import WrappedClient

    Client = FlightSQLClient | WrappedClient
    Login = PendingLogin | GivenSignIn[HubTokenProvider]

# One fruitless attempt may only mean that another program is renewing just now.
_FRUITLESS_ATTEMPTS = 2
_OTHER_MACHINE = "Is the kernel on another machine than your browser? Run %micromegas_login --flow device."


@runtime_checkable
class PersonalProvider(AuthProvider, Protocol):
    """A provider that a person signed in for; service accounts and key files do not know of one."""

    def identity(self) -> Identity:
        """Return who is signed in."""
        ...

    def renew(self) -> None:
        """Renew the token now; where nobody can renew it, nothing happens.

        Raises:
            LoginRequired: The sign-in is gone, or the provider has ended it.
            ProviderUnavailable: The provider does not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowToUse:
    """How a person signs in here.

    Attributes:
        flow: The way.
        reason: Why not in another way, for the person; empty when that is not worth a line.
        fallbacks: What to go on with, announced, when that turns out not to work.
    """

    flow: Flow
    reason: str = ""
    fallbacks: tuple[Flow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowWish:
    """What a magic's `--flow` asked for.

    Attributes:
        flow: The way that was named; None when none was.
        is_automatic: Whether it asked to leave it to the surroundings.
    """

    flow: Flow | None = None
    is_automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the magics need from the rest of the package.

    Attributes:
        load_settings: Settings of a profile, None for the configured one, with variables that stand in for those of
            the environment.
        stored_provider: What the settings give without a person; raises `LoginRequired`.
        choose_flow: How a person signs in from this shell; raises when nobody can, or not in the way asked for.
        remember_flow: Keeps a flow for later sign-ins of the settings' profile; None forgets it.
        begin_login: Starts a sign-in and returns at once.
        logout: Ends all sign-ins of the settings' profile, at the provider's page too when asked; the text of the
            answer is the line to show.
        renewal: Keeps a provider's token fresh and tells of each attempt, with the error when it failed; None for
            providers that need no such thing.
        open_client: A client of the server that the settings name.
        ask: Asks the person for a line; a notebook does not show the answer.
        is_wrapped: Whether a wrapper module makes the client, which then signs in by itself.
        clock: Tells the time.
        browser: Opens the sign-in page when there is no notebook to show a link in.
    """

    load_settings: Callable[[str | None, Mapping[str, str]], ClientSettings]
    stored_provider: Callable[[ClientSettings], AuthProvider | None]
    choose_flow: Callable[[ClientSettings, object, FlowWish], FlowToUse]
    remember_flow: Callable[[ClientSettings, Flow | None], None]
    begin_login: Callable[[ClientSettings, Flow], Login]
    logout: Callable[[ClientSettings, bool], object]
    renewal: Callable[[AuthProvider, Callable[[MicromegasError | None], None]], TokenRenewal | None]
    open_client: Callable[[ClientSettings, AuthProvider | None], Client]
    ask: Callable[[str], str]
    is_wrapped: Callable[[], bool] = lambda: False
    clock: Clock = SYSTEM_CLOCK
    browser: Browser = SYSTEM_BROWSER


class TokenRenewal:
    """Keeps a provider's token fresh beside the cells, and tells of every change of it, not of failures alone.

    Args:
        provider: Whose token is kept fresh.
        clock: Tells the time.
        on_change: Told None for another token, whoever renewed it, and an error when that fails; on a thread.
    """

    def __init__(
        self, provider: RenewableProvider, *, clock: Clock, on_change: Callable[[MicromegasError | None], None]
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._tell = on_change
        self._known_due_at = provider.renewal_due_at()
        self._fruitless_attempts = 0
        # It asks this object in place of the provider, and knows it weakly.
        self._background = BackgroundRenewal(self, clock=clock, on_change=on_change)

    def start(self) -> None:
        """Begin; returns at once."""
        self._background.start()

    def stop(self) -> None:
        """End, after a renewal that is on its way; returns at once."""
        self._background.stop()

    def get_token(self) -> str:
        """Return a token that is valid now, renewed if that was due and possible."""
        token = self._provider.get_token()
        due_at = self._provider.renewal_due_at()
        if due_at is None or due_at > self._clock.now():
            self._fruitless_attempts = 0
            return token
        self._fruitless_attempts += 1
        if self._fruitless_attempts >= _FRUITLESS_ATTEMPTS:
            self._tell(ProviderUnavailable("the identity provider gave no new token."))
        return token

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` renews; None when there is nothing to renew."""
        due_at = self._provider.renewal_due_at()
        if due_at != self._known_due_at:
            self._known_due_at = due_at
            self._tell(None)
        return due_at


def real_parts() -> Parts:
    """Return the parts for a notebook or an IPython terminal."""
    return Parts(
        load_settings=lambda profile, variables: wiring.load_client_settings(profile=profile, options=variables),
        stored_provider=lambda settings: wiring.stored_provider(settings),  # noqa: PLW0108 - loads when it is called
        choose_flow=_choose_flow,
        remember_flow=lambda settings, flow: wiring.remember_flow(settings, flow),  # noqa: PLW0108 - as above
        begin_login=_LoginStarter().begin,
        logout=_logout,
        renewal=_renewal,
        open_client=_ClientOpener().open,
        ask=_ask,
        is_wrapped=lambda: wiring.is_wrapped(),  # noqa: PLW0108 - as above
        browser=GraphicalBrowser(),
    )


class _NoBrowser:
    """Opens nothing."""

    def open(self, _url: str) -> bool:
        return False


def _choose_flow(settings: ClientSettings, shell: object, wish: FlowWish) -> FlowToUse:
    facts = gather_facts(shell=shell)
    choice = wiring.choose_flow(settings, facts=facts, wanted=wish.flow, is_automatic=wish.is_automatic)
    flow = wiring.require_flow(settings, choice)
    return FlowToUse(flow=flow, reason=flow_reason(choice, has_kernel=facts.has_kernel), fallbacks=choice.fallbacks)


def flow_reason(choice: FlowChoice, *, has_kernel: bool) -> str:
    """Return why a person signs in in this way; empty for what they asked for, and for what everybody expects."""
    if choice.origin == ARGUMENT:
        return ""
    if choice.skipped:
        return " ".join(f"Not by {skipped.flow.value}: {skipped.reason}." for skipped in choice.skipped)
    if choice.flow is Flow.REDIRECT:
        return ""
    if choice.flow is Flow.BROWSER:
        return _OTHER_MACHINE if has_kernel else ""
    return choice.reason


class _LoginStarter:
    """Starts sign-ins; those by redirect share the kernel's one desk.

    `_lock` keeps a cell and a widget's button, which come on two threads, from making two of them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._desk: RedirectDesk | None = None

    def begin(self, settings: ClientSettings, flow: Flow) -> Login:
        desk = self._open_desk() if flow is Flow.REDIRECT else None
        return wiring.begin_login(settings, flow=flow, announce=_announce, desk=desk)

    def _open_desk(self) -> RedirectDesk | None:
        from micromegas_jupyter.notebook.login.control_channel import listen, make_desk

        kernel = _running_kernel()
        with self._lock:
            self._desk = self._desk or make_desk(kernel, process_variables())
            if self._desk is not None:
                listen(kernel, self._desk)
            return self._desk


def _running_kernel() -> object:
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def _logout(settings: ClientSettings, end_session: bool) -> object:  # noqa: FBT001 - `Parts.logout`'s shape
    # A browser that opens where the kernel runs need not be the person's; the report then has the address.
    browser = _NoBrowser() if _in_kernel() else GraphicalBrowser()
    return wiring.logout(settings, end_session=end_session, browser=browser)


def _renewal(provider: AuthProvider, on_change: Callable[[MicromegasError | None], None]) -> TokenRenewal | None:
    # Service accounts renew when they are asked: nobody looks at how long their token is good. So does JupyterHub's
    # sign-in: what is told to the widget beside the cells counts as a person's activity, which keeps a server from
    # being culled.
    if getattr(provider, "through", "") or not callable(getattr(provider, "renewal_due_at", None)):
        return None
    return TokenRenewal(cast("RenewableProvider", provider), clock=SYSTEM_CLOCK, on_change=on_change)


class _ClientOpener:
    """Opens clients; that a wrapper is deprecated is said once, in words and without a place in the code."""

    def __init__(self) -> None:
        self._has_said_so = False

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
            elif not self._has_said_so:
                self._has_said_so = True
                print(f"note: {DEPRECATION_NOTICE}")  # noqa: T201 - to the person
        return client


def _ask(prompt: str) -> str:
    import getpass

    # A kernel puts its front end's password input in place of `getpass`.
    if not _in_kernel() and sys.stdin.isatty():
        from prompt_toolkit import prompt as ask_hidden

        # A terminal that is read by lines takes no more than 1,024 to 4,096 characters; this one is not.
        return ask_hidden(prompt, is_password=True)
    return getpass.getpass(prompt)


def _in_kernel() -> bool:
    return gather_facts().has_kernel


def _announce(sentence: str) -> None:
    print(sentence)  # noqa: T201 - to the person
