"""The clients of one notebook, by the settings they were made from; at most a few at a time."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.notebook.words import host_text

if TYPE_CHECKING:
    from micromegas_jupyter.client import FlightSQLClient
    from micromegas_jupyter.contracts import AuthProvider
    from micromegas_jupyter.notebook.parts import Parts
    from micromegas_jupyter.settings import ClientSettings

_MAX_CONNECTIONS = 8

SIGN_IN_REMEDY = "Run %micromegas_login (or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A client and the provider of its tokens; None when no sign-in is configured."""

    provider: AuthProvider | None
    client: FlightSQLClient


class Connections:
    """Keeps the connections and closes them: the oldest when there are too many, all in `close`.

    `_lock` guards `_by_settings`; it is free while a provider or a client is made.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = Lock()
        self._by_settings: dict[ClientSettings, Connection] = {}

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
            provider = self._parts.stored_provider(settings)
        except LoginRequired as error:
            raise LoginRequired(
                f"You are not signed in to {host_text(settings.uri)}.", remedy=SIGN_IN_REMEDY
            ) from error
        return self.put(settings, provider)

    def put(self, settings: ClientSettings, provider: AuthProvider | None) -> Connection:
        """Open a client with this provider, in place of one for the same settings."""
        connection = Connection(provider=provider, client=self._parts.open_client(settings, provider))
        with self._lock:
            closing = [self._by_settings.pop(settings)] if settings in self._by_settings else []
            self._by_settings[settings] = connection
            while len(self._by_settings) > _MAX_CONNECTIONS:
                closing.append(self._by_settings.pop(next(iter(self._by_settings))))
        for old in closing:
            old.client.close()
        return connection

    def drop(self, settings: ClientSettings) -> None:
        """Forget and close the connection of these settings, if there is one."""
        with self._lock:
            old = self._by_settings.pop(settings, None)
        if old is not None:
            old.client.close()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            closing = list(self._by_settings.values())
            self._by_settings.clear()
        for old in closing:
            old.client.close()
