"""`ProviderHttp`: fetches a document from an identity provider or posts a form to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import urlsplit

from micromegas_jupyter.core.http.answers import FailureKind, HttpAnswer, read_answer, revealed
from micromegas_jupyter.core.http.bounded_calls import BoundedCalls, Callee
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.urls import check_endpoint_url, is_loopback_url
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    import requests

MAX_RUNNING_EXCHANGES = 16

_HTTPS_PORT = 443
_HTTP_PORT = 80

# Values that are secrets are revealed only on the thread that sends them.
FormFields: TypeAlias = Mapping[str, str | Secret]

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "micromegas_jupyter",
}
_REMEDIES = {
    FailureKind.NAME: "Check the spelling of the issuer (MICROMEGAS_OIDC_ISSUER), and the network.",
    FailureKind.REFUSED: "Check the address of the issuer (MICROMEGAS_OIDC_ISSUER), and that the provider runs.",
    FailureKind.TLS: (
        "Check that the issuer speaks TLS and that this machine's clock is right; behind a company's proxy, "
        "set MICROMEGAS_CA_BUNDLE."
    ),
    FailureKind.PROXY: (
        "Check the proxy: MICROMEGAS_OIDC_PROXY, else https_proxy; NO_PROXY names hosts that need none."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    url: str
    headers: FormFields = field(repr=False)
    fields: FormFields | None = field(default=None, repr=False)
    refuses_private: bool = False

    def prepare(self) -> requests.PreparedRequest:
        """Return the request with its secrets revealed."""
        import requests

        headers = {**_HEADERS, **revealed(self.headers)}
        data = None if self.fields is None else revealed(self.fields)
        return requests.Request(self.method, self.url, headers=headers, data=data).prepare()


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

    Every call ends within `timeout_seconds`, whatever the other side does. Where nothing else is said, proxies and the
    CA bundle come from the environment as `requests` reads it, and `NO_PROXY` always counts; cookies, `.netrc` and
    redirects are never used. A name server that hangs cannot be cut off, so at most `MAX_RUNNING_EXCHANGES` threads
    may be held by one.

    Args:
        timeout_seconds: The total deadline of each call, from connecting to the last byte.
        max_bytes: The most that a body may hold.
        ca_bundle: A PEM file or a folder of certificates to trust instead of the environment's choice.
        extra_ca_bundle: A PEM file of certificates to trust besides; read at once.
        proxy: The proxy for hosts other than this machine, instead of the environment's.

    Raises:
        ConfigurationError: There is no such CA bundle, or it holds no certificate.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float = 10.0,
        max_bytes: int = 1_000_000,
        ca_bundle: str | Path | None = None,
        extra_ca_bundle: Path | None = None,
        proxy: Secret | None = None,
    ) -> None:
        if ca_bundle is not None and not Path(ca_bundle).exists():
            raise ConfigurationError(
                "The file of certificates to trust does not exist.",
                key="ca_bundle",
                remedy="Correct the path (ca_file, where an issuer's setting names it).",
            )
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._proxy = proxy
        self._calls = BoundedCalls(
            most=MAX_RUNNING_EXCHANGES,
            max_bytes=max_bytes,
            ca_bundle=None if ca_bundle is None else str(ca_bundle),
            extra_ca_bundle=extra_ca_bundle,
        )

    def fetch_json(self, url: str, *, headers: FormFields | None = None, refuses_private: bool = False) -> HttpAnswer:
        """Fetch the JSON document at `url`.

        Args:
            url: Where it is.
            headers: Further headers, for example `Authorization`.
            refuses_private: Whether to send nothing when the host turns out to be at an address inside a network.
                A proxy looks the host up itself; then nothing is refused here.

        Raises:
            ProviderUnavailable: No answer in time, 5xx or 429, or a private address that is refused.
            ProviderMisbehaved: The URL is not https (or http on loopback), or the answer is a redirect, not JSON,
                oversized or encoded.
            ConfigurationError: The environment names a CA bundle that does not exist, or a malformed proxy.
        """
        return self._call(_Request(method="GET", url=url, headers=headers or {}, refuses_private=refuses_private))

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
        request = _Request(method="POST", url=url, fields=fields, headers=headers or {})
        return self._call(request, needs_body=needs_body)

    def close(self) -> None:
        """Cut running calls and refuse new ones; safe to call twice."""
        self._calls.close()

    def _call(self, request: _Request, *, needs_body: bool = True) -> HttpAnswer:
        place = _place_of(request.url, host=check_endpoint_url(request.url))
        raw = self._calls.run(
            request.prepare,
            callee=Callee(name=f"The identity provider {place}", group="identity providers", remedies=_REMEDIES),
            timeout_seconds=self._timeout_seconds,
            proxy=self._proxy_for(request.url),
            refuses_private=request.refuses_private,
        )
        return read_answer(raw, host=place, max_bytes=self._max_bytes, needs_body=needs_body)

    def _proxy_for(self, url: str) -> Secret | None:
        from requests.utils import should_bypass_proxies

        from micromegas_jupyter.core.http.exchange import environment_proxy

        # A proxy would carry plain http for loopback off this machine.
        if is_loopback_url(url) or should_bypass_proxies(url, no_proxy=None):
            return None
        if self._proxy is not None:
            return self._proxy
        return environment_proxy(url)


def _place_of(url: str, *, host: str) -> str:
    """Return the host for people, with the port unless it is the usual one."""
    parts = urlsplit(url)
    usual = _HTTPS_PORT if parts.scheme == "https" else _HTTP_PORT
    if parts.port in {None, usual}:
        return host
    return f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"
