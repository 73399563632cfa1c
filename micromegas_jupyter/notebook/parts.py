"""The parts that the magics work with, as protocols and one bundle; `real_parts` gives the real ones.

A test, or a front end with another way to sign in, passes a different part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from micromegas_jupyter.contracts import AuthProvider
from micromegas_jupyter.seams import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from micromegas_jupyter.auth import Identity
    from micromegas_jupyter.client import FlightSQLClient
    from micromegas_jupyter.client.wrapper import WrappedClient
    from micromegas_jupyter.errors import MicromegasError
    from micromegas_jupyter.settings import ClientSettings, Flow

    Client = FlightSQLClient | WrappedClient


class Login(Protocol):
    """A sign-in that has been started and goes on by itself."""

    @property
    def flow(self) -> Flow:
        """The way of signing in."""
        ...

    @property
    def start_url(self) -> str | None:
        """The address to open; None when there is a code to type.

        Where the answer must be pasted it is the provider's own page and holds the sign-in's state.
        """
        ...

    @property
    def user_code(self) -> str | None:
        """The code to type; None in other flows."""
        ...

    @property
    def verification_uri(self) -> str | None:
        """Where to type it; None in other flows."""
        ...

    @property
    def verification_uri_complete(self) -> str | None:
        """The same with the code in it, where the provider has that."""
        ...

    @property
    def expires_at(self) -> datetime:
        """When the offer ends (aware UTC)."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        ...

    def result(self, timeout_seconds: float) -> AuthProvider:
        """Wait for the end and return the provider.

        Raises:
            LoginFailed: It ended without a token, or not in time.
        """
        ...

    def on_done(self, callback: Callable[..., None]) -> None:
        """Have `callback` called once when it ends, on a thread of its own; at once when it has ended."""
        ...

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Have `callback` told the redirect URI when a browser is sent on, where it is only known then."""
        ...

    def submit(self, text: str) -> None:
        """Take the address that the person pasted.

        Raises:
            UsageError: It is not this sign-in's; it may be tried again.
            ProviderMisbehaved: It is from another provider or malformed; it may be tried again.
        """
        ...

    def cancel(self) -> None:
        """End it without a token."""
        ...


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


class Renewal(Protocol):
    """Keeps a provider's token fresh while it runs."""

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def stop(self) -> None:
        """End; returns at once, and no change is told any more soon after."""
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
    renewal: Callable[[AuthProvider, Callable[[MicromegasError | None], None]], Renewal | None]
    open_client: Callable[[ClientSettings, AuthProvider | None], Client]
    ask: Callable[[str], str]
    is_wrapped: Callable[[], bool] = lambda: False
    clock: Clock = SYSTEM_CLOCK
    browser: Browser = SYSTEM_BROWSER
