"""HTTP calls to identity providers, cloud platforms, and the JupyterHub service.

Every call has one total deadline and one size limit, does not follow redirects, and uses neither cookies nor `.netrc`.
"""

from __future__ import annotations

import contextvars
import ipaddress
import json
import os
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret, SecretObject, secret_object
from micromegas_jupyter.core.text import (
    JsonError,
    check_endpoint_url,
    decode_strict_json,
    is_loopback_url,
    split_plain_url,
)
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests
    from requests.adapters import HTTPAdapter

MAX_BUNDLE_BYTES = 4 * 2**20
MAX_RUNNING_CALLS = 16
MAX_RESPONSE_BYTES = 1_000_000
MAX_PLATFORM_URL_CHARACTERS = 8192
PROVIDER_TIMEOUT_SECONDS = 10.0
PLATFORM_TIMEOUT_SECONDS = 5.0
HUB_SERVICE = "The sign-in service of JupyterHub"
HUB_UNAVAILABLE_REMEDY = (
    "Try again in a moment. If that doesn't help, ask your Hub administrator to check whether the `micromegas` service "
    "is running."
)

# Secret values are revealed only on the thread that sends them.
FormFields: TypeAlias = Mapping[str, str | Secret]

_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)
_TOO_MANY_REQUESTS = 429
_USUAL_PORTS = {"https": 443, "http": 80}
_JSON = "application/json"
_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "micromegas_jupyter"}
# Names of this machine and of Google's metadata service, which has a link-local address.
_PLAIN_HTTP_NAMES = frozenset({"localhost", "metadata.google.internal"})
_CERTIFICATE = re.compile(
    r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]{1,65536}-----END (?:TRUSTED )?CERTIFICATE-----"
)
# By `ExchangeFailed.kind`.
_PROVIDER_REMEDIES = {
    "name": "Check the spelling of the issuer (MICROMEGAS_OIDC_ISSUER, or issuer of a Hub), and the network.",
    "refused": "Check the address of the issuer (MICROMEGAS_OIDC_ISSUER), and that the provider runs.",
    "tls": (
        "Check that the issuer speaks TLS and that this machine's clock is right; behind a company's proxy, "
        "set MICROMEGAS_CA_BUNDLE."
    ),
    "proxy": "Check the proxy: MICROMEGAS_OIDC_PROXY or https_proxy. NO_PROXY lists hosts that don't need one.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A readable provider response: 2xx, or 4xx for errors that OAuth reports in JSON.

    `reached_private`: it came directly, without a proxy, from an address inside a network.
    """

    status: int
    body: object = field(repr=False)
    date: datetime | None = None
    reached_private: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status in _SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """The status, headers (with lowercase names), and undecoded body, which is at most one byte over the size limit."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    reached_private: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status in _SUCCESS

    @property
    def media_type(self) -> str:
        """The media type without its parameters, in lowercase."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def date(self) -> datetime | None:
        """The sender's clock as an aware UTC time, or None if unknown."""
        # Caches repeat the stored response's Date and add its age: RFC 9111 section 5.1.
        text = self.headers.get("date")
        if text is None or self.headers.get("age", "0").strip() != "0":
            return None
        from email.utils import parsedate_to_datetime

        try:
            found = parsedate_to_datetime(text)
            return None if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None

    def text(self) -> str:
        """Return the body as a string, or an empty string if the body is not UTF-8."""
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError:
            return ""

    def json_object(self) -> SecretObject:
        """Return the body as a JSON object with a hidden repr; empty if the body is anything else."""
        try:
            value = decode_strict_json(self.body.decode("utf-8"))
        except (UnicodeDecodeError, JsonError):
            value = None
        return secret_object(value) or SecretObject()


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """How errors describe the called service; `remedies` replaces `remedy` for some kinds of network failures."""

    name: str
    remedy: str | None = None
    remedies: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""


class HttpClient:
    """Sends a limited number of concurrent requests; safe to use from several threads.

    `ca_bundle` replaces the environment's certificates, `extra_ca_bundle` adds to them. A hanging name server cannot be
    interrupted, so a call that timed out may occupy its slot for a while.
    """

    TIMEOUT_SECONDS = PROVIDER_TIMEOUT_SECONDS

    def __init__(
        self,
        *,
        timeout_seconds: float | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
        ca_bundle: str | Path | None = None,
        extra_ca_bundle: Path | None = None,
        proxy: Secret | None = None,
    ) -> None:
        if ca_bundle is not None and not Path(ca_bundle).exists():
            raise ConfigurationError(
                "The CA bundle does not exist.",
                key="ca_bundle",
                remedy="Correct the path (MICROMEGAS_CA_BUNDLE, ca_bundle, or an issuer's ca_file).",
            )
        self._max_bytes = max_bytes
        self._timeout_seconds = self.TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        self._proxy = proxy
        self._ca_bundle = None if ca_bundle is None else str(ca_bundle)
        self._extra_certificates = None if extra_ca_bundle is None else read_certificates(extra_ca_bundle)
        self._free_slots = threading.BoundedSemaphore(MAX_RUNNING_CALLS)
        self._lock = threading.Lock()
        self._running: set[Exchange] = set()
        self._is_closed = False

    def close(self) -> None:
        """Abort running calls and reject new ones; safe to call more than once."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for exchange in running:
            exchange.abort()

    def _send(  # noqa: PLR0913 - one request
        self,
        prepare: Callable[[], requests.PreparedRequest],
        callee: Callee,
        *,
        timeout_seconds: float | None = None,
        proxy: Secret | None = None,
        refuse_private: bool = False,
        accept_server_errors: bool = False,
        needs_body: bool = True,
    ) -> RawAnswer:
        """Send a request on another thread, and return its checked response; waiting for a slot counts as well."""
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        timeout_seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = SYSTEM_CLOCK.monotonic() + timeout_seconds
        # Set explicitly even if it is the default: some versions of `requests` share one context for the default, to
        # which the extra certificates must not be added.
        authorities = self._ca_bundle or environment_ca_bundle() or DEFAULT_CA_BUNDLE_PATH
        if not self._free_slots.acquire(timeout=timeout_seconds):
            raise ProviderUnavailable(
                f"{callee.name} wasn't called because too many calls are waiting for a response.", remedy=callee.remedy
            )
        exchange = Exchange(
            prepare,
            # The exchange's deadline limits the call. This longer timeout applies per read, and only frees a thread
            # whose connection could not be closed.
            settings={"timeout": 2 * timeout_seconds, "verify": authorities},
            max_bytes=self._max_bytes,
            on_end=self._free_slots.release,
            refuse_private=refuse_private,
            proxy=proxy,
            extra_certificates=self._extra_certificates,
        )
        try:
            with self._lock:
                is_closed = self._is_closed
                self._running.add(exchange)
            if is_closed:
                self._free_slots.release()
                raise ProviderUnavailable(
                    f"{callee.name} was not called because the connection is closed.", remedy=callee.remedy
                )
            raw = exchange.run(timeout_seconds=max(0.0, deadline - SYSTEM_CLOCK.monotonic()))
        except ExchangeFailed as failure:
            raw = None  # the machine was suspended, and the deadline passed before the failure was noticed
            if SYSTEM_CLOCK.monotonic() < deadline:
                raise ProviderUnavailable(
                    f"{callee.name} could not be reached: {failure}.",
                    remedy=callee.remedies.get(failure.kind, callee.remedy),
                ) from None
        finally:
            with self._lock:
                self._running.discard(exchange)
        if raw is None:
            raise ProviderUnavailable(
                f"{callee.name} did not send a complete response within {timeout_seconds:g} seconds.",
                remedy=callee.remedy,
            )
        check_answer(
            raw, callee, max_bytes=self._max_bytes, accept_server_errors=accept_server_errors, needs_body=needs_body
        )
        return raw


class ProviderCalls(Protocol):
    """The subset of `ProviderHttp` that callers need."""

    def fetch_json(self, url: str) -> HttpAnswer:
        """Fetch the JSON document at `url`."""

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        """Post a form to `url` and return the response."""


class ProviderHttp(HttpClient):
    """Calls identity providers; bypasses the proxy for loopback addresses and hosts in `NO_PROXY`."""

    def fetch_json(
        self,
        url: str,
        *,
        headers: FormFields | None = None,
        refuses_private: bool = False,
        kind: str = "The identity provider",
    ) -> HttpAnswer:
        """Fetch the JSON document at `url`, which is https, or http on loopback; errors describe its host as `kind`.

        With `refuses_private`, nothing is sent to an address inside a network; this has no effect with a proxy.
        """
        return self._call("GET", url, headers, refuse_private=refuses_private, kind=kind)

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        """Post a form; `needs_body` is False if a successful response's body is irrelevant (RFC 7009 section 2.2)."""
        return self._call("POST", url, headers, fields, needs_body=needs_body)

    def _call(  # noqa: PLR0913 - one request
        self,
        method: str,
        url: str,
        headers: FormFields | None,
        fields: FormFields | None = None,
        *,
        refuse_private: bool = False,
        needs_body: bool = True,
        kind: str = "The identity provider",
    ) -> HttpAnswer:
        name = f"{kind} {_host_and_port(url, host=check_endpoint_url(url))}"
        callee = Callee(name=name, remedies=_PROVIDER_REMEDIES)
        raw = self._send(
            lambda: _prepare(method, url, {"Accept": _JSON, **(headers or {})}, fields),
            callee,
            # A proxy would send plain HTTP for loopback to a different machine.
            proxy=None if is_loopback_url(url) else proxy_for(url, self._proxy),
            refuse_private=refuse_private,
            needs_body=needs_body,
        )
        return read_answer(raw, callee, needs_body=needs_body)


class PlatformHttp(HttpClient):
    """Requests this program's identity from a platform over plain HTTP within the machine, without a proxy."""

    TIMEOUT_SECONDS = PLATFORM_TIMEOUT_SECONDS

    def get(self, url: str, *, headers: FormFields, platform: Callee) -> RawAnswer:
        """Fetch `url`, which must be https, or http to this machine or its metadata services."""
        is_plain = check_platform_url(url, platform)
        raw = self._send(lambda: _prepare("GET", url, headers), platform)
        if is_plain and not raw.reached_private:
            # The name resolved to an address outside this network, so the responder isn't a metadata service.
            raise ProviderMisbehaved(
                f"{platform.name} responded from a public internet address.", remedy=platform.remedy
            )
        return raw


class HubHttp(HttpClient):
    """Calls a JupyterHub's sign-in service with this server's token; plain HTTP is never sent through a proxy."""

    def call(
        self, url: str, *, token: Secret, body: Mapping[str, object] | None = None, timeout_seconds: float | None = None
    ) -> tuple[int, SecretObject | None]:
        """Post `body` as JSON to a checked URL, or GET if there is no body; return the status and any JSON object."""
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
        headers = {"Accept": _JSON, "Content-Type": _JSON}
        raw = self._send(
            lambda: _prepare(method, url, {**headers, "Authorization": f"Bearer {token.reveal()}"}, data),
            Callee(name=HUB_SERVICE, remedy=HUB_UNAVAILABLE_REMEDY),
            timeout_seconds=timeout_seconds,
            proxy=proxy_for(url) if urlsplit(url).scheme == "https" else None,
            accept_server_errors=True,
        )
        return raw.status, (raw.json_object() or None) if raw.media_type == _JSON else None


def check_answer(
    raw: RawAnswer, callee: Callee, *, max_bytes: int, accept_server_errors: bool = False, needs_body: bool = True
) -> None:
    """Check that a response isn't a server error or a redirect, and that its body is neither too large nor encoded."""
    if not accept_server_errors and (raw.status in _SERVER_ERRORS or raw.status == _TOO_MANY_REQUESTS):
        raise ProviderUnavailable(f"{callee.name} returned status {raw.status}.")
    problem = None
    if raw.status in _REDIRECTS:  # it could redirect a secret to another host: RFC 9700 section 4.12
        problem = f"returned a redirect (status {raw.status}), which is not followed"
    elif raw.is_success and not needs_body:
        return
    elif len(raw.body) > max_bytes:
        problem = f"sent more than {max_bytes} bytes"
    elif raw.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        problem = "sent a compressed body, although none was requested"
    if problem is not None:
        raise ProviderMisbehaved(f"{callee.name} {problem}.", remedy=callee.remedy)


def read_answer(raw: RawAnswer, callee: Callee, *, needs_body: bool = True) -> HttpAnswer:
    """Decode a provider's response; raises `ProviderMisbehaved` if it is not JSON."""
    if not raw.is_success and raw.status not in _CLIENT_ERRORS:
        raise ProviderMisbehaved(f"{callee.name} returned status {raw.status} instead of a document.")
    body = None
    if raw.body and (needs_body or not raw.is_success):
        if raw.media_type != _JSON and not re.fullmatch(r"application/.*\+json", raw.media_type):
            raise ProviderMisbehaved(f"{callee.name} did not return JSON (status {raw.status}).")
        try:
            body = decode_strict_json(raw.body.decode("utf-8"))
        except (UnicodeDecodeError, JsonError):
            raise ProviderMisbehaved(f"{callee.name} returned invalid JSON.") from None
    return HttpAnswer(status=raw.status, body=body, date=raw.date, reached_private=raw.reached_private)


def check_platform_url(url: str, platform: Callee) -> bool:
    """Check that a platform may be called at `url`, which may contain a secret; return whether it is plain HTTP."""
    parts = split_plain_url(url, max_characters=MAX_PLATFORM_URL_CHARACTERS)
    problem = "cannot be used"
    if parts is not None and "@" not in parts.netloc and not parts.fragment:
        host = parts.hostname or ""
        if parts.scheme == "https":
            return False
        if parts.scheme == "http" and (host in _PLAIN_HTTP_NAMES or _is_inside_machine(host)):
            return True
        problem = "is neither https nor inside this machine"
    raise ConfigurationError(f"The address of {platform.name} {problem}.", key=platform.setting, remedy=platform.remedy)


def _is_inside_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local


def environment_ca_bundle() -> str | None:
    """Return the CA file or folder from the environment, using the same rules as `requests`."""
    found = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if found and not Path(found).exists():
        raise ConfigurationError(
            "The CA bundle specified in the environment does not exist.",
            key="REQUESTS_CA_BUNDLE",
            remedy="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, or unset it.",
        )
    return found or None


def read_certificates(path: Path) -> str:
    """Return only the certificates in a PEM file."""
    import ssl

    try:
        content, _ = read_shared_file(path, max_bytes=MAX_BUNDLE_BYTES)
        # Bundles may have comments in any encoding.
        certificates = "\n".join(_CERTIFICATE.findall(content.decode("latin-1")))
        problem = None if certificates else "does not contain a PEM certificate"
        if certificates:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except FileProblem as error:
        problem = str(error.args[0])
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: it is not ASCII
        problem = "contains a corrupted certificate"
    if problem is not None:
        raise ConfigurationError(
            f"The CA bundle {problem}.",
            key="ca_bundle",
            remedy="Set MICROMEGAS_CA_BUNDLE or ca_bundle to the path of a PEM file that contains certificates.",
        )
    return certificates


def _prepare(
    method: str, url: str, headers: FormFields, body: FormFields | str | None = None
) -> requests.PreparedRequest:
    """Build the request with its secrets revealed; call this only on the thread that sends it."""
    import requests

    data = _reveal(body) if isinstance(body, Mapping) else body
    return requests.Request(method, url, headers={**_HEADERS, **_reveal(headers)}, data=data).prepare()


def _reveal(values: FormFields) -> dict[str, str]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}


def _host_and_port(url: str, *, host: str) -> str:
    """Return the host for messages, with the port if it isn't the scheme's default."""
    parts = urlsplit(url)
    if parts.port in {None, _USUAL_PORTS[parts.scheme]}:
        return host
    return f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"


_CHUNK_BYTES = 16 * 1024
# A process that wakes up this late was suspended. The received data may be a refresh token that replaces a used one, so
# the response is still read for a short time.
_SUSPENDED_SECONDS = 1.0
_LATE_READ_SECONDS = 2.0
_PROXY_NAMES = "https_proxy, HTTPS_PROXY, all_proxy or ALL_PROXY, or unset it"
# The last four bytes of these addresses are an IPv4 address: RFC 6052 section 2.1.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 8215. Missing in some Python versions.
_TRANSLATED_LOCALLY = ipaddress.IPv6Network("64:ff9b:1::/48")

_running: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("running_exchange", default=None)


class ExchangeFailed(Exception):
    """No response was received; `kind` is `name`, `refused`, `tls`, `proxy`, or empty if the cause is unknown."""

    def __init__(self, why: str, kind: str = "") -> None:
        super().__init__(why)
        self.kind = kind


class Exchange:
    """Runs one request on a daemon thread, the only place where its secrets are revealed.

    `requests` limits each read, not the call: a server that sends a byte per second never exceeds its timeout. The lock
    guards the list of connections and whether they were closed; it is never held during I/O.
    """

    def __init__(  # noqa: PLR0913 - one request's circumstances
        self,
        prepare: Callable[[], requests.PreparedRequest],
        *,
        settings: Mapping[str, Any],
        max_bytes: int,
        on_end: Callable[[], None],
        refuse_private: bool = False,
        proxy: Secret | None = None,
        extra_certificates: str | None = None,
    ) -> None:
        self._prepare = prepare
        self._settings = settings
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._refuse_private = refuse_private
        self._proxy = proxy
        self.extra_certificates = extra_certificates
        self._reached_private = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._is_cut = False
        self._ended = threading.Event()
        self._outcome: RawAnswer | ExchangeFailed = ExchangeFailed("nothing was sent")

    def run(self, *, timeout_seconds: float) -> RawAnswer | None:
        """Send the request and return the response, or None if the deadline has passed."""
        thread = threading.Thread(target=self._work, name="micromegas-provider-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._on_end()
            raise ExchangeFailed("no thread is available for the call") from None
        started_at = SYSTEM_CLOCK.monotonic()
        try:
            in_time = self._ended.wait(timeout_seconds)
            if not in_time and SYSTEM_CLOCK.monotonic() - started_at > timeout_seconds + _SUSPENDED_SECONDS:
                in_time = self._ended.wait(_LATE_READ_SECONDS)
        finally:
            self.abort()
        if not in_time:
            return None
        if isinstance(self._outcome, ExchangeFailed):
            raise self._outcome
        return self._outcome

    def abort(self) -> None:
        """Close all current and future connections of this exchange; safe to call twice and from any thread."""
        with self._lock:
            self._is_cut = True
            connections, self._connections = self._connections, []
        for connection in connections:
            _cut(connection)

    def watch(self, connection: socket.socket, *, is_direct: bool) -> None:
        """Register a new connection so that it can be aborted; `is_direct` means that no proxy is used."""
        # Checks the connection itself, because a second name lookup could return a different address.
        if is_direct and is_private_address(connection.getpeername()[0]):
            self._reached_private = True
            if self._refuse_private:
                raise ExchangeFailed("its address is private, which is not allowed for this call")
        # TLS takes over the socket's descriptor; a duplicate still reaches the connection.
        duplicate = connection.dup()
        with self._lock:
            if not self._is_cut:
                self._connections.append(duplicate)
                return
        _cut(duplicate)

    def _work(self) -> None:
        _running.set(self)
        try:
            self._outcome = self._send()
        except ExchangeFailed as failure:
            self._outcome = failure
        except Exception as error:  # noqa: BLE001 - requests, urllib3, sockets, and ssl raise unrelated errors
            self._outcome = _describe(error)
        finally:
            self._ended.set()
            self._on_end()

    def _send(self) -> RawAnswer:
        settings = dict(self._settings)
        if self._proxy is not None:
            settings["proxies"] = dict.fromkeys(("http", "https"), self._proxy.reveal())
        with closing(_adapter_class()()) as adapter:
            response = adapter.send(self._prepare(), stream=True, **settings)
            body = bytearray()
            while len(body) <= self._max_bytes:
                chunk = response.raw.read(min(_CHUNK_BYTES, self._max_bytes + 1 - len(body)), decode_content=False)
                if not chunk:
                    break
                body += chunk
            headers = {name.lower(): value for name, value in response.headers.items()}
            return RawAnswer(
                status=response.status_code, headers=headers, body=bytes(body), reached_private=self._reached_private
            )


def is_private_address(address: str) -> bool:
    """Whether an IP address is invalid or outside the public internet (IANA's registries)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local or found in _TRANSLATED_LOCALLY:
            return True
        if found in _TRANSLATED:
            found = ipaddress.IPv4Address(found.packed[-4:])
        else:  # RFC 4291 section 2.5.5.2; RFC 3056 section 2
            found = found.ipv4_mapped or found.sixtofour or found
    return not found.is_global or found.is_multicast


def proxy_for(url: str, configured: Secret | None = None) -> Secret | None:
    """Return the proxy for `url` from the settings or the environment, or None if `NO_PROXY` matches the host."""
    from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies

    if should_bypass_proxies(url, no_proxy=None):
        return None
    if configured is not None:
        return configured
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    # Libraries reject invalid addresses with messages that are useless or reveal the address.
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError(
            "The proxy address specified in the environment is invalid.",
            key="https_proxy",
            remedy=f"Correct {_PROXY_NAMES}.",
        )
    if found.lower().startswith("socks") and find_spec("socks") is None:
        raise ConfigurationError(
            "The environment specifies a SOCKS proxy, which requires the PySocks package.",
            key="https_proxy",
            remedy=f"Install PySocks, or correct {_PROXY_NAMES}.",
        )
    return Secret(found)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the peer was faster
    finally:
        connection.close()


def _watch_connection(connection: socket.socket, *, is_direct: bool) -> socket.socket:
    exchange = _running.get()
    if exchange is not None:
        try:
            exchange.watch(connection, is_direct=is_direct)
        except BaseException:
            connection.close()
            raise
    return connection


@cache
def _adapter_class() -> type[HTTPAdapter]:
    """Return an adapter class; using it without a session prevents redirects, cookies, and .netrc passwords."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class WatchedConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _watch_connection(super()._new_conn(), is_direct=self.proxy is None)

    class WatchedTlsConnection(HTTPSConnection):
        def connect(self) -> None:
            exchange = _running.get()
            if exchange is not None and exchange.extra_certificates is not None:
                # Used in addition to `ca_certs`, also for the proxy's certificate.
                self.ca_cert_data = exchange.extra_certificates
            super().connect()

        def _new_conn(self) -> socket.socket:
            return _watch_connection(super()._new_conn(), is_direct=self.proxy is None)

    class WatchedPool(HTTPConnectionPool):
        ConnectionCls = WatchedConnection

    class WatchedTlsPool(HTTPSConnectionPool):
        ConnectionCls = WatchedTlsConnection

    pools = {"http": WatchedPool, "https": WatchedTlsPool}

    class WatchedAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **kwargs)
            if not proxy.lower().startswith("socks"):
                manager.pool_classes_by_scheme = pools
            return manager

    return WatchedAdapter


def _describe(error: Exception) -> ExchangeFailed:
    from requests.exceptions import ProxyError, SSLError, Timeout

    # The error's class, a part of its text, the message, and its kind; the first match applies.
    failures: tuple[tuple[type[Exception], str, str, str], ...] = (
        (ProxyError, "CERTIFICATE_VERIFY", "the proxy's TLS certificate could not be verified", "proxy"),
        (ProxyError, " 407 ", "the proxy requires a different user name and password", "proxy"),
        (ProxyError, "", "the proxy refused the connection or did not respond", "proxy"),
        (SSLError, "CERTIFICATE_VERIFY", "its TLS certificate could not be verified", "tls"),
        (SSLError, "", "TLS failed", "tls"),
        (Timeout, "", "it did not respond in time", ""),
        (Exception, "NameResolutionError", "its name was not found", "name"),
        (Exception, "refused", "the connection was refused", "refused"),
        (Exception, "", "the connection was lost", ""),
    )
    text = str(error)
    return next(
        ExchangeFailed(what, kind)
        for kind_of, part, what, kind in failures
        if isinstance(error, kind_of) and part in text
    )
