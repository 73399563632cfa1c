"""`ProviderHttp`: fetches a document from an identity provider or posts a form to it.

The documents' meaning, retries and caching are left to the callers.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import requests
from requests.utils import get_environ_proxies

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderUnavailable
from micromegas_jupyter.http.answers import HttpAnswer, RawAnswer, read_answer
from micromegas_jupyter.http.exchange import Exchange, ExchangeFailed
from micromegas_jupyter.oidc.endpoints import check_endpoint_url
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.settings import is_loopback_url

MAX_RUNNING_EXCHANGES = 16

# Values that are secrets are revealed only on the thread that sends them.
FormFields: TypeAlias = Mapping[str, str | Secret]

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "micromegas_jupyter",
}


class ProviderCalls(Protocol):
    """What callers need of `ProviderHttp`; a test may stand in for it."""

    def fetch_json(self, url: str) -> HttpAnswer:
        """Fetch the JSON document at `url`."""
        ...

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        """Post a form to `url` and return the answer."""
        ...


class ProviderHttp:
    """Calls identity providers; safe to use from several threads.

    Every call ends within `timeout_seconds`, whatever the other side does. Proxies and the CA bundle come from the
    environment as `requests` reads it; cookies, `.netrc` and redirects are never used. A name server that hangs
    cannot be cut off, so at most `MAX_RUNNING_EXCHANGES` threads may be held by one.

    Args:
        timeout_seconds: The total deadline of each call, from connecting to the last byte.
        max_bytes: The most that a body may hold.
        ca_bundle: A PEM file or a folder of certificates to trust instead of the environment's choice.

    Raises:
        ConfigurationError: There is no such CA bundle.
    """

    def __init__(
        self, *, timeout_seconds: float = 10.0, max_bytes: int = 1_000_000, ca_bundle: str | Path | None = None
    ) -> None:
        if ca_bundle is not None and not Path(ca_bundle).exists():
            raise ConfigurationError("The CA bundle does not exist.", key="ca_bundle")
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._ca_bundle = None if ca_bundle is None else str(ca_bundle)
        self._free_places = threading.BoundedSemaphore(MAX_RUNNING_EXCHANGES)
        self._lock = threading.Lock()
        self._running: set[Exchange] = set()
        self._is_closed = False

    def fetch_json(self, url: str) -> HttpAnswer:
        """Fetch the JSON document at `url`.

        Raises:
            ProviderUnavailable: No answer in time, 5xx or 429.
            ProviderMisbehaved: The URL is not https (or http on loopback), or the answer is a redirect, not JSON,
                oversized or encoded.
            ConfigurationError: The environment names a CA bundle that does not exist.
        """
        return self._call("GET", url, fields=None, headers={}, needs_body=True)

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        """Post `fields` as a form to `url`; raises as `fetch_json` does.

        Args:
            url: Where to.
            fields: The form; values that are secrets stay hidden until they are sent.
            headers: Further headers, for example `Authorization`.
            needs_body: False where the body of a success means nothing and need not be JSON.
        """
        return self._call("POST", url, fields=fields, headers=headers or {}, needs_body=needs_body)

    def close(self) -> None:
        """Cut running calls and refuse new ones; safe to call twice."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for exchange in running:
            exchange.abort()

    def _call(
        self, method: str, url: str, *, fields: FormFields | None, headers: FormFields, needs_body: bool
    ) -> HttpAnswer:
        host = check_endpoint_url(url)
        raw = self._exchange(method, url, host=host, fields=fields, headers=headers)
        return read_answer(raw, host=host, max_bytes=self._max_bytes, needs_body=needs_body)

    def _exchange(
        self, method: str, url: str, *, host: str, fields: FormFields | None, headers: FormFields
    ) -> RawAnswer:
        deadline = SYSTEM_CLOCK.monotonic() + self._timeout_seconds
        settings = self._transport_settings(url)
        if not self._free_places.acquire(timeout=self._timeout_seconds):
            raise ProviderUnavailable("Too many calls to identity providers are still waiting for an answer.")

        def prepare() -> requests.PreparedRequest:
            sent_headers = {**_HEADERS, **_revealed(headers)}
            data = None if fields is None else _revealed(fields)
            return requests.Request(method, url, headers=sent_headers, data=data).prepare()

        exchange = Exchange(prepare, settings=settings, max_bytes=self._max_bytes, on_end=self._free_places.release)
        try:
            self._register(exchange, host)
            answer = exchange.run(timeout_seconds=max(0.0, deadline - SYSTEM_CLOCK.monotonic()))
        except ExchangeFailed as failure:
            raise ProviderUnavailable(f"The identity provider {host} could not be reached: {failure}.") from None
        finally:
            with self._lock:
                self._running.discard(exchange)
        if answer is None:
            raise ProviderUnavailable(
                f"The identity provider {host} did not answer in full within {self._timeout_seconds:g} seconds."
            )
        return answer

    def _register(self, exchange: Exchange, host: str) -> None:
        with self._lock:
            if not self._is_closed:
                self._running.add(exchange)
                return
        self._free_places.release()
        raise ProviderUnavailable(f"The identity provider {host} was not called: the connection is closed.")

    def _transport_settings(self, url: str) -> dict[str, Any]:
        # A proxy would carry plain http for loopback off this machine.
        proxies = {} if is_loopback_url(url) else get_environ_proxies(url)
        verify: str | bool = self._ca_bundle or _environment_ca_bundle() or True
        # The exchange's deadline bounds the call. This one, for each read, comes after it and only frees a thread whose
        # connection could not be cut.
        return {"timeout": 2 * self._timeout_seconds, "verify": verify, "proxies": proxies}


def _environment_ca_bundle() -> str | None:
    # The names and their order are those of `requests`.
    found = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if found and not Path(found).exists():
        raise ConfigurationError(
            "The environment names a CA bundle that does not exist.",
            key="REQUESTS_CA_BUNDLE",
            remedy="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, or unset it.",
        )
    return found or None


def _revealed(values: FormFields) -> dict[str, str]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}
