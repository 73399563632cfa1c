"""One HTTP request on a thread of its own, so that one deadline holds against every way to stall.

`requests` bounds each read, not the call: a server that sends a byte a second never trips its timeout.
"""

from __future__ import annotations

import contextvars
import ipaddress
import socket
import threading
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CHUNK_BYTES = 16 * 1024
_PROXY_NAMES = "https_proxy, HTTPS_PROXY, all_proxy or ALL_PROXY, or unset it"
# An IPv4 address stands in the last four bytes of these: RFC 6052 section 2.1.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 8215. Not every version of Python knows it.
_TRANSLATED_LOCALLY = ipaddress.IPv6Network("64:ff9b:1::/48")

_running: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("running_exchange", default=None)


class ExchangeFailed(Exception):
    """The network gave no response; `args[0]` says why, without an address or a secret.

    `kind` is `name`, `refused`, `tls` or `proxy`, or empty where nobody can do anything about it.
    """

    def __init__(self, why: str, kind: str = "") -> None:
        super().__init__(why)
        self.kind = kind


Response = tuple[int, dict[str, str], bytes, bool]
"""Status, headers (names in lower case), undecoded body, and whether it came from a private address without a proxy."""


class _PrivateAddress(Exception):
    """The host is at a private address, which the caller refuses."""


class Exchange:
    """Runs one request on a daemon thread; `abort` cuts its connections at any point.

    `prepare` builds the request on that thread and `proxy` is revealed there, so that no secret is in a frame of the
    caller. `settings` go to `requests`, and `on_end` is called when the thread ends, late or not. With
    `refuse_private` it hangs up, before anything is sent, when the host turns out to be at an address inside a network;
    a proxy looks up the host itself, so nothing is known about it then.

    Its lock covers the list of connections and whether they were cut; no I/O happens under it.
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
        self._outcome: Response | ExchangeFailed = ExchangeFailed("nothing was sent")

    def run(self, *, timeout_seconds: float) -> Response | None:
        """Send the request and return the response; None when the deadline passed."""
        thread = threading.Thread(target=self._work, name="micromegas-provider-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._on_end()
            raise ExchangeFailed("this machine has no thread left for the call") from None
        try:
            in_time = self._ended.wait(timeout_seconds)
        finally:
            self.abort()
        if not in_time:
            return None
        if isinstance(self._outcome, ExchangeFailed):
            raise self._outcome
        return self._outcome

    def abort(self) -> None:
        """Cut every connection of this exchange, now and later; safe to call twice and from any thread."""
        with self._lock:
            self._is_cut = True
            connections, self._connections = self._connections, []
        for connection in connections:
            _cut(connection)

    def watch(self, connection: socket.socket, *, is_direct: bool) -> None:
        """Remember a new connection so that it can be cut; `is_direct` says that no proxy is at its other end."""
        # Looked up a second time, the name could give another address, so the connection itself is asked.
        if is_direct and is_private_address(connection.getpeername()[0]):
            self._reached_private = True
            if self._refuse_private:
                raise _PrivateAddress
        # TLS takes the socket object apart and keeps only its descriptor: a duplicate still reaches the connection.
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
        except _PrivateAddress:
            self._outcome = ExchangeFailed("its address is a private one, which this call does not accept")
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            self._outcome = _describe(error)
        finally:
            self._ended.set()
            self._on_end()

    def _send(self) -> Response:
        settings = dict(self._settings)
        if self._proxy is not None:
            settings["proxies"] = dict.fromkeys(("http", "https"), self._proxy.reveal())
        with closing(_WatchedAdapter()) as adapter:
            response = adapter.send(self._prepare(), stream=True, **settings)
            body = bytearray()
            while len(body) <= self._max_bytes:
                chunk = response.raw.read(min(_CHUNK_BYTES, self._max_bytes + 1 - len(body)), decode_content=False)
                if not chunk:
                    break
                body += chunk
            headers = {name.lower(): value for name, value in response.headers.items()}
            return response.status_code, headers, bytes(body), self._reached_private


def is_private_address(address: str) -> bool:
    """Whether an IP address is not one of the public internet; anything that is no IP address counts as private.

    IPv6 forms that stand for an IPv4 address count as that. Source: IANA's special-purpose registries.
    """
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
    """Return the proxy for `url`: the configured one, else the environment's; None where `NO_PROXY` names the host."""
    if should_bypass_proxies(url, no_proxy=None):
        return None
    return environment_proxy(url) if configured is None else configured


def environment_proxy(url: str) -> Secret | None:
    """Return the proxy that `requests` would use for `url`; its address may hold a password."""
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    # Libraries fail on these in ways that show the address, or say nothing of use.
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError(
            "The environment names a proxy whose address is malformed.",
            key="https_proxy",
            remedy=f"Correct {_PROXY_NAMES}.",
        )
    if found.lower().startswith("socks") and find_spec("socks") is None:
        raise ConfigurationError(
            "The environment names a SOCKS proxy, which needs the package PySocks.",
            key="https_proxy",
            remedy=f"Install PySocks, or correct {_PROXY_NAMES}.",
        )
    return Secret(found)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster
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


class _WatchedConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _watch_connection(super()._new_conn(), is_direct=self.proxy is None)


class _WatchedTlsConnection(HTTPSConnection):
    def connect(self) -> None:
        exchange = _running.get()
        if exchange is not None and exchange.extra_certificates is not None:
            # Added to those of `ca_certs`, for the proxy's certificate too.
            self.ca_cert_data = exchange.extra_certificates
        super().connect()

    def _new_conn(self) -> socket.socket:
        return _watch_connection(super()._new_conn(), is_direct=self.proxy is None)


class _WatchedPool(HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


_POOLS = {"http": _WatchedPool, "https": _WatchedTlsPool}


class _WatchedAdapter(HTTPAdapter):
    """An adapter for one exchange: without a session there are no redirects, cookies or .netrc passwords."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


# What an error is, what its text holds, what to say, and its kind; the first line that fits counts.
_FAILURES: tuple[tuple[type[Exception], str, str, str], ...] = (
    (
        requests.exceptions.ProxyError,
        "CERTIFICATE_VERIFY",
        "the proxy's TLS certificate could not be verified",
        "proxy",
    ),
    (requests.exceptions.ProxyError, " 407 ", "the proxy requires a different user name and password", "proxy"),
    (requests.exceptions.ProxyError, "", "the proxy refused or did not answer", "proxy"),
    (requests.exceptions.SSLError, "CERTIFICATE_VERIFY", "its TLS certificate could not be verified", "tls"),
    (requests.exceptions.SSLError, "", "TLS failed", "tls"),
    (requests.exceptions.Timeout, "", "it did not answer in time", ""),
    (Exception, "NameResolutionError", "its name was not found", "name"),
    (Exception, "refused", "the connection was refused", "refused"),
    (Exception, "", "the connection broke", ""),
)


def _describe(error: Exception) -> ExchangeFailed:
    text = str(error)
    return next(
        ExchangeFailed(what, kind) for cls, part, what, kind in _FAILURES if isinstance(error, cls) and part in text
    )
