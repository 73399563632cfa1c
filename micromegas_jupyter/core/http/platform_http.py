"""`PlatformHttp`: asks the platform that a program runs on who the program is.

Metadata services speak plain http at addresses inside the machine, which no identity provider may; the rest is as
strict as for providers.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from micromegas_jupyter.core.http.answers import check_available, check_body, check_not_redirected, parse_date, revealed
from micromegas_jupyter.core.http.bounded_calls import BoundedCalls, Callee
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.secrets import SecretObject, secret_object
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from micromegas_jupyter.core.protocols import Secret


DEFAULT_TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 128 * 1024
MAX_URL_CHARACTERS = 8192
MAX_RUNNING_CALLS = 4

# Names that mean this machine, or the metadata service at Google, which is at a link-local address.
_PLAIN_HTTP_NAMES = frozenset({"localhost", "metadata.google.internal"})
_SUCCESS = range(200, 300)
_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "micromegas_jupyter"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformAnswer:
    """A platform's answer.

    Attributes:
        status: 2xx, or 4xx other than 429.
        headers: By name in lower case.
        body: At most `MAX_ANSWER_BYTES`.
        date: The platform's own clock (the Date header) as aware UTC; None when absent or unreadable.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    date: datetime | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return self.status in _SUCCESS

    def json_object(self) -> SecretObject:
        """Return the body as a JSON object that shows nothing; an empty one when it is anything else."""
        try:
            value = decode_strict_json(self.body.decode("utf-8"))
        except (UnicodeDecodeError, JsonError):
            value = None
        return secret_object(value) or SecretObject()

    def text(self) -> str:
        """Return the body as text; empty when it is not UTF-8."""
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError:
            return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """How errors speak of a platform.

    Attributes:
        name: Its name, as a sentence begins with it.
        setting: The setting or variable that leads there.
        remedy: What to do when it does not answer, or not like this platform.
    """

    name: str
    setting: str
    remedy: str


class PlatformHttp:
    """Calls platforms; safe to use from several threads.

    Every call ends within `timeout_seconds`. Neither proxies nor redirects, cookies or `.netrc` are used: a metadata
    service's answer is for this machine only.

    Args:
        timeout_seconds: The total deadline of each call.
        extra_ca_bundle: A PEM file of certificates to trust besides the usual ones, for platforms of one's own
            organisation; read at once.

    Raises:
        ConfigurationError: The file of certificates cannot be used.
    """

    def __init__(
        self, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS, extra_ca_bundle: Path | None = None
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._calls = BoundedCalls(most=MAX_RUNNING_CALLS, max_bytes=MAX_ANSWER_BYTES, extra_ca_bundle=extra_ca_bundle)

    def get(self, url: str, *, headers: Mapping[str, str | Secret], platform: Platform) -> PlatformAnswer:
        """Ask the platform.

        Args:
            url: Where; https, or http to this machine and its metadata services.
            headers: What the platform wants to see; secrets are revealed only on the thread that sends them.
            platform: Named in errors.

        Raises:
            ConfigurationError: The URL is not one that may be called, or the environment's CA bundle does not exist.
            ProviderUnavailable: No answer in time, 5xx or 429.
            ProviderMisbehaved: A redirect, or an encoded or oversized body.
        """
        is_plain = check_platform_url(url, platform)
        raw = self._calls.run(
            lambda: requests.Request("GET", url, headers={**_HEADERS, **revealed(headers)}).prepare(),
            callee=Callee(name=platform.name, group=platform.name, remedy=platform.remedy),
            timeout_seconds=self._timeout_seconds,
        )
        if is_plain and not raw.reached_private:
            # The name led out of this network: whoever answers there is no metadata service.
            raise ProviderMisbehaved(
                f"{platform.name} answered from an address of the internet.", remedy=platform.remedy
            )
        check_available(raw, platform.name)
        check_not_redirected(raw, platform.name, remedy=platform.remedy)
        check_body(raw, platform.name, max_bytes=MAX_ANSWER_BYTES, remedy=platform.remedy)
        date = parse_date(raw.headers.get("date"))
        return PlatformAnswer(status=raw.status, headers=raw.headers, body=raw.body, date=date)


def check_platform_url(url: str, platform: Platform) -> bool:
    """Check that a platform may be called there; True when it is plain http.

    Raises:
        ConfigurationError: It is neither https, nor http to a loopback or link-local address or a known metadata
            service, or it has a user or a fragment. The address is not shown: it may hold a secret.
    """
    is_readable = (
        len(url) <= MAX_URL_CHARACTERS and url.isascii() and url.isprintable() and not set(url) & set(' \\"<>')
    )
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or not is_readable or "@" in parts.netloc or parts.fragment:
        raise ConfigurationError(
            f"The address of {platform.name} cannot be used.", key=platform.setting, remedy=platform.remedy
        )
    if parts.scheme == "https":
        return False
    if parts.scheme == "http" and (host in _PLAIN_HTTP_NAMES or _is_inside_machine(host)):
        return True
    raise ConfigurationError(
        f"The address of {platform.name} is neither https nor inside this machine.",
        key=platform.setting,
        remedy=platform.remedy,
    )


def _is_inside_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local
