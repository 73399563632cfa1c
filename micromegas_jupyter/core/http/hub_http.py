"""`HubHttp`: asks the sign-in service of the JupyterHub that this program's server belongs to.

As strict as for providers, and plain http never goes through a proxy: every request carries the server's own token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from micromegas_jupyter.core.http.answers import check_body, check_not_redirected
from micromegas_jupyter.core.http.bounded_calls import BoundedCalls, Callee
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.secrets import SecretObject, secret_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import requests

    from micromegas_jupyter.core.http.answers import RawAnswer
    from micromegas_jupyter.core.protocols import Secret

DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 * 1024
MAX_RUNNING_CALLS = 4
SERVICE = "The sign-in service of JupyterHub"
UNAVAILABLE_REMEDY = (
    "Try again in a moment. If that does not help, ask the Hub's administrator whether the service `micromegas` runs."
)

_CALLEE = Callee(name=SERVICE, group="the sign-in service of JupyterHub", remedy=UNAVAILABLE_REMEDY)
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "Content-Type": "application/json",
    "User-Agent": "micromegas_jupyter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAnswer:
    """What the service answered.

    Attributes:
        status: Any status but that of a redirect.
        body: The JSON object; None when the answer is anything else.
    """

    status: int
    body: SecretObject | None = field(repr=False)


class HubHttp:
    """Calls the service; safe to use from several threads.

    Every call ends within its deadline, whatever the other side does. Redirects, cookies and `.netrc` are never used.
    Plain http goes to the service directly; https goes through the proxy that the environment names, as `NO_PROXY` has
    it.

    Args:
        timeout_seconds: The total deadline of a call that names none.
        extra_ca_bundle: A PEM file of certificates to trust besides the usual ones; read at once.

    Raises:
        ConfigurationError: The file of certificates cannot be used.
    """

    def __init__(
        self, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS, extra_ca_bundle: Path | None = None
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._calls = BoundedCalls(most=MAX_RUNNING_CALLS, max_bytes=MAX_ANSWER_BYTES, extra_ca_bundle=extra_ca_bundle)

    def call(
        self,
        url: str,
        *,
        token: Secret,
        body: Mapping[str, object] | None = None,
        timeout_seconds: float | None = None,
    ) -> HubAnswer:
        """Ask the service.

        Args:
            url: Where; the caller has checked that the token may go there.
            token: This server's token, revealed only on the thread that sends it.
            body: What is posted as JSON; None asks with GET.
            timeout_seconds: The total deadline; the usual one when None.

        Raises:
            ProviderUnavailable: No answer in time, or the connection is closed.
            ProviderMisbehaved: A redirect, or an encoded or oversized body.
            ConfigurationError: The environment names a CA bundle that does not exist, or a malformed proxy.
        """
        raw = self._calls.run(
            lambda: _request(url, token, body),
            callee=_CALLEE,
            timeout_seconds=timeout_seconds or self._timeout_seconds,
            proxy=_proxy_for(url),
        )
        check_not_redirected(raw, SERVICE, remedy=UNAVAILABLE_REMEDY)
        check_body(raw, SERVICE, max_bytes=MAX_ANSWER_BYTES, remedy=UNAVAILABLE_REMEDY)
        return HubAnswer(status=raw.status, body=_object_in(raw))

    def close(self) -> None:
        """Cut running calls and refuse new ones; safe to call twice."""
        self._calls.close()


def _request(url: str, token: Secret, body: Mapping[str, object] | None) -> requests.PreparedRequest:
    import requests

    headers = {**_HEADERS, "Authorization": f"Bearer {token.reveal()}"}
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
    return requests.Request(method, url, headers=headers, data=data).prepare()


def _proxy_for(url: str) -> Secret | None:
    # A proxy would read what plain http carries.
    if urlsplit(url).scheme != "https":
        return None
    from requests.utils import should_bypass_proxies

    from micromegas_jupyter.core.http.exchange import environment_proxy

    return None if should_bypass_proxies(url, no_proxy=None) else environment_proxy(url)


def _object_in(raw: RawAnswer) -> SecretObject | None:
    media_type = raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return None
    try:
        return secret_object(decode_strict_json(raw.body.decode("utf-8")))
    except (UnicodeDecodeError, JsonError):
        return None
