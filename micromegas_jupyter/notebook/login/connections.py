"""The connections of one notebook: which settings its cells use, their names, and a client for each."""

from __future__ import annotations

import contextvars
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError, UsageError
from micromegas_jupyter.notebook.formatting import cut, printable, sign_in_text
from micromegas_jupyter.notebook.login.dependencies import Dependencies, PersonalProvider, TokenRenewal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.dependencies import Client

VARIABLE_OF_OPTION = MappingProxyType(
    {
        "issuer": "MICROMEGAS_OIDC_ISSUER",
        "client_id": "MICROMEGAS_OIDC_CLIENT_ID",
        "scope": "MICROMEGAS_OIDC_SCOPE",
        "audience": "MICROMEGAS_OIDC_AUDIENCE",
    }
)
"""The variable that each option of `%micromegas_login` replaces."""

MAX_NAMES = 32
_URI_VARIABLE = "MICROMEGAS_ANALYTICS_URI"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_MAX_SHOWN_CHARACTERS = 64
_MAX_CONNECTIONS = 8
_MAX_NOTICES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChoice:
    """Which settings to use.

    Attributes:
        profile: A profile of `config.json`; None for the configured one.
        variables: Variables that replace those of the environment.
        as_service_account: Whether the configured service account signs in, whoever else may be signed in.
        uri: The server in place of the configured one; None for that.
        settings: The settings that were read when the choice got a name; None reads them afresh each time.
    """

    profile: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    as_service_account: bool = False
    uri: str | None = None
    settings: ClientSettings | None = None

    def with_options(
        self, *, profile: str | None, options: Mapping[str, str | None], as_service_account: bool | None = None
    ) -> SettingsChoice:
        """Return the choice that a magic's options make.

        A profile starts afresh; options alone leave the profile, and the server that was named. `as_service_account`
        alone leaves all of them.
        """
        variables = {VARIABLE_OF_OPTION[name]: value for name, value in options.items() if value}
        if profile is None and not variables:
            return self if as_service_account is None else replace(self, as_service_account=as_service_account)
        return SettingsChoice(
            profile=profile or self.profile,
            variables=variables,
            as_service_account=bool(as_service_account),
            uri=self.uri if profile is None else None,
        )

    def with_server(self, uri: str | None, *, profile: str | None) -> SettingsChoice:
        """Return the choice of another server, of a profile, or of both; a profile starts afresh."""
        return replace(self, uri=uri, settings=None) if profile is None else SettingsChoice(profile=profile, uri=uri)

    def read(
        self, load: Callable[[str | None, Mapping[str, str]], ClientSettings], *, profile: str | None = None
    ) -> ClientSettings:
        """Read the settings; those of `profile` alone when it is another one.

        `load` withholds the configured application's secret from a provider that the options name instead.
        """
        if profile is not None and profile != self.profile:
            return load(profile, {})
        if self.settings is not None:
            return replace(self.settings, as_service_account=self.as_service_account)
        server = {} if self.uri is None else {_URI_VARIABLE: self.uri}
        settings = load(self.profile, {**self.variables, **server})
        return replace(settings, as_service_account=True) if self.as_service_account else settings


class NamedConnections:
    """The names for `--connection`, each with the settings that were read when it was given."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[SettingsChoice, ClientSettings]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def put(self, name: str, choice: SettingsChoice, settings: ClientSettings) -> bool:
        """Give a name to settings; returns whether it named others before."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'"{_shown(name)}" is not a valid connection name.', remedy="Use letters, digits, _ and -, at most 63."
            )
        if name not in self._by_name and len(self._by_name) >= MAX_NAMES:
            raise UsageError(f"There are {MAX_NAMES} named connections already.", remedy="Reuse one of the names.")
        is_changed = name in self._by_name and self._by_name[name][1] != settings
        self._by_name[name] = (replace(choice, settings=settings), settings)
        return is_changed

    def forget(self, name: str) -> None:
        """Remove a name, if there is one."""
        self._by_name.pop(name, None)

    def choice(self, name: str) -> SettingsChoice:
        """Return the choice with this name."""
        return self._require(name)[0]

    def settings(self, name: str) -> ClientSettings:
        """Return the settings with this name."""
        return self._require(name)[1]

    def all(self) -> dict[str, ClientSettings]:
        """Return the settings of every name, in the order in which the names were given."""
        return {name: settings for name, (_, settings) in self._by_name.items()}

    def _require(self, name: str) -> tuple[SettingsChoice, ClientSettings]:
        known = self._by_name.get(name)
        if known is not None:
            return known
        nearest = get_close_matches(name, self._by_name, n=1)
        what = f'There is no connection named "{_shown(name)}".'
        if nearest:
            raise UsageError(what, remedy=f'Did you mean "{nearest[0]}"?')
        names = f"The named ones: {', '.join(self._by_name)}. " if self._by_name else ""
        raise UsageError(what, remedy=f"{names}%micromegas_connect URI --as NAME names one.")


def _shown(name: str) -> str:
    return cut(printable(name), _MAX_SHOWN_CHARACTERS)


class Notices:
    """Notices of a server about the credential, each text once; safe to use from several threads."""

    def __init__(self) -> None:
        self._new: deque[str] = deque(maxlen=_MAX_NOTICES)
        self._newest: str | None = None

    def add(self, text: str) -> None:
        """Add a text."""
        self._newest = text
        self._new.append(text)

    def take_new(self) -> list[str]:
        """Return the texts that were not taken yet."""
        taken = []
        while self._new:
            taken.append(self._new.popleft())
        return taken

    def newest(self) -> str | None:
        """Return the last text, and count all as taken; None when there never was one."""
        self.take_new()
        return self._newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A client with the provider of its tokens.

    Attributes:
        provider: Gives the tokens; None when no sign-in is configured.
        client: The client.
        renewal: Keeps the provider's token fresh; None when that is not needed.
        notices: The server's notices about the credential.
    """

    provider: AuthProvider | None
    client: Client
    renewal: TokenRenewal | None = None
    notices: Notices = field(default_factory=Notices, compare=False)

    def token_ends_at(self) -> datetime | None:
        """Return when a person's token expires (aware UTC); None when that is not known."""
        if isinstance(self.provider, PersonalProvider):
            with suppress(MicromegasError):
                return self.provider.identity().expires_at
        return None

    def close(self) -> None:
        """Stop the renewal and close the client."""
        if self.renewal is not None:
            self.renewal.stop()
        self.client.close()


class Connections:
    """The open connections by their settings; closes the oldest when there are too many, and all in `close`.

    `_lock` guards `_by_settings` and `_is_closed`; it is free while a provider or a client is made.

    Args:
        dependencies: Make providers, clients and renewals.
        on_renewal: Called after each change of a token in the background, with the error when renewing failed; on any
            thread.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        on_renewal: Callable[[ClientSettings, AuthProvider, MicromegasError | None], None],
    ) -> None:
        self._dependencies = dependencies
        self._on_renewal = on_renewal
        self._lock = Lock()
        self._by_settings: dict[ClientSettings, Connection] = {}
        self._local: dict[ClientSettings, AuthProvider] = {}
        self._signed_out: set[str | None] = set()
        self._is_closed = False

    def add_local(self, settings: ClientSettings, provider: AuthProvider) -> None:
        """Use this provider for settings of a server that belongs to this notebook."""
        self._local[settings] = provider

    def is_local(self, settings: ClientSettings) -> bool:
        """Whether these settings are of a server that belongs to this notebook."""
        return settings in self._local

    def remove_local(self, settings: ClientSettings) -> None:
        """Undo `add_local`, and close the connection."""
        self._local.pop(settings, None)
        self.drop(settings)

    def get(self, settings: ClientSettings) -> Connection:
        """Return the connection of these settings, opened on first use; without any network."""
        known = self.current(settings)
        if known is not None:
            return known
        where = sign_in_text(settings)
        try:
            provider = self._local.get(settings) or self._dependencies.stored_provider(settings)
        except LoginRequired as error:
            raise LoginRequired(f"Not signed in{where}.", remedy=error.remedy) from error
        through = getattr(provider, "through", "")
        if through and settings.profile in self._signed_out:
            raise LoginRequired(
                f"Not signed in{where}: you signed out here.",
                remedy=f"Run %micromegas_login to sign in through {through} again.",
            )
        return self._open(settings, provider, is_newer=False)

    def sign_out_locally(self, profile: str | None) -> None:
        """Let nothing sign the person in without a click for this profile, until `allow_sign_in`."""
        self._signed_out.add(profile)

    def allow_sign_in(self, profile: str | None) -> None:
        """Undo `sign_out_locally`."""
        self._signed_out.discard(profile)

    def put(self, settings: ClientSettings, provider: AuthProvider | None) -> Connection:
        """Open a connection with this provider, in place of one for the same settings."""
        return self._open(settings, provider, is_newer=True)

    def _open(self, settings: ClientSettings, provider: AuthProvider | None, *, is_newer: bool) -> Connection:
        """Open a connection; one that was opened meanwhile may be in use and stays, unless this provider is newer."""
        connection = Connection(
            provider=provider,
            client=self._dependencies.open_client(settings, provider),
            renewal=None if provider is None else self._renewal(settings, provider),
        )
        connection.client.on_notice(connection.notices.add)
        closing = []
        with self._lock:
            known = None if is_newer else self._by_settings.get(settings)
            if known is not None or self._is_closed:
                # A sign-in may end while the extension is unloaded; nobody would close this one later.
                closing.append(connection)
            else:
                if settings in self._by_settings:
                    closing.append(self._by_settings.pop(settings))
                self._by_settings[settings] = connection
                while len(self._by_settings) > _MAX_CONNECTIONS:
                    closing.append(self._by_settings.pop(next(iter(self._by_settings))))
                if connection.renewal is not None:
                    connection.renewal.start()
        for old in closing:
            old.close()
        return known or connection

    def current(self, settings: ClientSettings) -> Connection | None:
        """Return the connection of these settings if it is open already."""
        with self._lock:
            return self._by_settings.get(settings)

    def drop(self, settings: ClientSettings) -> None:
        """Close the connection of these settings, if there is one."""
        with self._lock:
            old = self._by_settings.pop(settings, None)
        if old is not None:
            old.close()

    def drop_profile(self, profile: str | None) -> None:
        """Close all connections of a profile."""
        with self._lock:
            closing = [found for found in self._by_settings if found.profile == profile]
        for settings in closing:
            self.drop(settings)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            self._is_closed = True
            closing = list(self._by_settings.values())
            self._by_settings.clear()
        for old in closing:
            old.close()

    def _renewal(self, settings: ClientSettings, provider: AuthProvider) -> TokenRenewal | None:
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        return self._dependencies.renewal(
            provider, lambda error: context.run(self._on_renewal, settings, provider, error)
        )
