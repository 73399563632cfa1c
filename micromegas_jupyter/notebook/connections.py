"""The clients of one notebook, by the settings they were made from, each with what keeps its token fresh."""

from __future__ import annotations

import contextvars
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError
from micromegas_jupyter.notebook.dependencies import Parts, PersonalProvider, TokenRenewal
from micromegas_jupyter.notebook.formatting import host_text, place_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.dependencies import Client

_MAX_CONNECTIONS = 8
_MAX_NOTICES = 8


class Notices:
    """What a server said about the credential, each text once; safe to use from several threads."""

    def __init__(self) -> None:
        self._new: deque[str] = deque(maxlen=_MAX_NOTICES)
        self._newest: str | None = None

    def note(self, text: str) -> None:
        """Keep a text until it is taken."""
        self._newest = text
        self._new.append(text)

    def take_new(self) -> list[str]:
        """Return what was not taken yet."""
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
        notices: What the server said about the credential.
    """

    provider: AuthProvider | None
    client: Client
    renewal: TokenRenewal | None = None
    notices: Notices = field(default_factory=Notices, compare=False)

    def token_ends_at(self) -> datetime | None:
        """Return when a person's token ends (aware UTC); None when that is not known."""
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
    """Keeps the connections and closes them: the oldest when there are too many, all in `close`.

    `_lock` guards `_by_settings` and `_is_closed`; it is free while a provider or a client is made.

    Args:
        parts: Makes providers, clients and renewals.
        on_renewal: Told of each attempt to renew a token, with the error when it failed; on any thread.
    """

    def __init__(
        self, parts: Parts, on_renewal: Callable[[ClientSettings, AuthProvider, MicromegasError | None], None]
    ) -> None:
        self._parts = parts
        self._on_renewal = on_renewal
        self._lock = Lock()
        self._by_settings: dict[ClientSettings, Connection] = {}
        self._lent: dict[ClientSettings, AuthProvider] = {}
        self._left: set[str | None] = set()
        self._is_closed = False

    def lend(self, settings: ClientSettings, provider: AuthProvider) -> None:
        """Let connections of these settings use this provider, which no configuration gives."""
        self._lent[settings] = provider

    def is_lent(self, settings: ClientSettings) -> bool:
        """Whether `lend` gave these settings their provider."""
        return settings in self._lent

    def take_back(self, settings: ClientSettings) -> None:
        """Undo `lend`, and close the connection."""
        self._lent.pop(settings, None)
        self.drop(settings)

    def get(self, settings: ClientSettings) -> Connection:
        """Return the connection of these settings, made when it is first asked for; uses no network.

        Raises:
            LoginRequired: A sign-in is configured and nobody is signed in.
            TokenStoreError: The token file cannot be used safely.
            ConfigurationError: The settings contradict each other or the key file cannot be read.
        """
        with self._lock:
            known = self._by_settings.get(settings)
        if known is not None:
            return known
        try:
            provider = self._lent.get(settings) or self._parts.stored_provider(settings)
        except LoginRequired as error:
            where = place_text(host_text(settings.issuer or ""), host_text(settings.uri))
            raise LoginRequired(f"Not signed in{where}.", remedy=error.remedy) from error
        through = getattr(provider, "through", "")
        if through and settings.profile in self._left:
            where = place_text(host_text(settings.issuer or ""), host_text(settings.uri))
            raise LoginRequired(
                f"Not signed in{where}: you signed out here.",
                remedy=f"Run %micromegas_login to be signed in through {through} again.",
            )
        return self._open(settings, provider, is_newer=False)

    def leave(self, profile: str | None) -> None:
        """Let nothing sign the person in by itself for this profile, until they come back to it."""
        self._left.add(profile)

    def come_back(self, profile: str | None) -> None:
        """Undo `leave`."""
        self._left.discard(profile)

    def put(self, settings: ClientSettings, provider: AuthProvider | None) -> Connection:
        """Open a client with this provider, in place of one for the same settings, and keep its token fresh."""
        return self._open(settings, provider, is_newer=True)

    def _open(self, settings: ClientSettings, provider: AuthProvider | None, *, is_newer: bool) -> Connection:
        """Open a client; one that has come meanwhile stays, as somebody may use it, unless this provider is newer."""
        connection = Connection(
            provider=provider,
            client=self._parts.open_client(settings, provider),
            renewal=None if provider is None else self._renewal(settings, provider),
        )
        connection.client.on_notice(connection.notices.note)
        closing = []
        with self._lock:
            known = None if is_newer else self._by_settings.get(settings)
            if known is not None or self._is_closed:
                # A sign-in may end while the extension goes away; nobody would close this one later.
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
        """Return the connection of these settings if there is one already."""
        with self._lock:
            return self._by_settings.get(settings)

    def drop(self, settings: ClientSettings) -> None:
        """Forget and close the connection of these settings, if there is one."""
        with self._lock:
            old = self._by_settings.pop(settings, None)
        if old is not None:
            old.close()

    def drop_profile(self, profile: str | None) -> None:
        """Forget and close all connections of a profile that a person's sign-in may stand behind."""
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
        return self._parts.renewal(provider, lambda error: context.run(self._on_renewal, settings, provider, error))
