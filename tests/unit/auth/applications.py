"""Applications that connect to the scripted provider, and the browser in which they end its session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.system import Secret

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls


class Applications:
    """Connects to the scripted provider; a client secret is known for one application."""

    def __init__(self, calls: DirectCalls, clock: FakeClock, *, secrets: dict[str, str] | None = None) -> None:
        self._calls = calls
        self._clock = clock
        self._secrets = secrets or {}
        self.connected: list[tuple[str, str]] = []

    def connect(self, issuer: str, client_id: str) -> ProviderConnection:
        self.connected.append((issuer, client_id))
        secret = self._secrets.get(client_id)
        proof = None if secret is None else Secret(secret)
        return ProviderConnection(issuer, client_id, proof, http=self._calls, clock=self._clock)


class Browser:
    """Implements `seams.Browser`: notes what it is to open."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return True
