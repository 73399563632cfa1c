"""The parts that the magics work with, as protocols and one bundle; `assembly` gives the real ones.

A test, or a front end with another way to sign in, passes a different part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from micromegas_jupyter.contracts import AuthProvider
from micromegas_jupyter.seams import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from micromegas_jupyter.auth import Identity
    from micromegas_jupyter.client import FlightSQLClient
    from micromegas_jupyter.settings import ClientSettings


class Login(Protocol):
    """A sign-in that has been started and goes on by itself."""

    @property
    def start_url(self) -> str:
        """The address to open; nothing in it is secret."""
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

    def cancel(self) -> None:
        """End it without a token."""
        ...


@runtime_checkable
class PersonalProvider(AuthProvider, Protocol):
    """A provider that a person signed in for; service accounts and key files have neither of these."""

    def identity(self) -> Identity:
        """Return who is signed in."""
        ...

    def logout(self) -> object:
        """End the sign-in; the text of the answer is the line to show."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the magics need from the rest of the package.

    Attributes:
        load_settings: Settings of a profile; None is the configured one.
        stored_provider: What the settings give without a person; raises `LoginRequired`.
        begin_login: Starts a sign-in and returns at once.
        open_client: A client of the server that the settings name.
        clock: Tells the time.
        browser: Opens the sign-in page when there is no notebook to show a link in.
    """

    load_settings: Callable[[str | None], ClientSettings]
    stored_provider: Callable[[ClientSettings], AuthProvider | None]
    begin_login: Callable[[ClientSettings], Login]
    open_client: Callable[[ClientSettings, AuthProvider | None], FlightSQLClient]
    clock: Clock = SYSTEM_CLOCK
    browser: Browser = SYSTEM_BROWSER


def real_parts(begin_login: Callable[[ClientSettings], Login] | None = None) -> Parts:
    """Return the parts that `assembly` joins; each loads when it is first used.

    Args:
        begin_login: Another way to start a sign-in than a receiver in this process.
    """

    def load_settings(profile: str | None) -> ClientSettings:
        from micromegas_jupyter import assembly

        return assembly.load_client_settings(profile=profile)

    def stored_provider(settings: ClientSettings) -> AuthProvider | None:
        from micromegas_jupyter import assembly

        return assembly.stored_provider(settings)

    def begin_loopback_login(settings: ClientSettings) -> Login:
        from micromegas_jupyter import assembly

        return assembly.begin_login(settings)

    def open_client(settings: ClientSettings, provider: AuthProvider | None) -> FlightSQLClient:
        from micromegas_jupyter import assembly

        return assembly.open_client(settings, provider)

    return Parts(
        load_settings=load_settings,
        stored_provider=stored_provider,
        begin_login=begin_loopback_login if begin_login is None else begin_login,
        open_client=open_client,
    )
