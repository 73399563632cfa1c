"""One request and its answer on a thread of its own, so that one deadline holds against every way to stall.

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
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from micromegas_jupyter.core.http.answers import ExchangeFailed, FailureKind, RawAnswer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


# An IPv4 address stands in the last four bytes of these: RFC 6052 section 2.1.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 8215. Not every version of Python knows it.
_TRANSLATED_LOCALLY = ipaddress.IPv6Network("64:ff9b:1::/48")


def is_private_address(address: str) -> bool:
    """Whether an IP address is not one of the public internet; anything that is no IP address counts as private.

    Private, loopback, link-local, unique-local, site-local, shared (RFC 6598), documentation, reserved and multicast
    addresses are, and so are IPv6 forms that stand for such an IPv4 address. Source: IANA's special-purpose registries.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local or found in _TRANSLATED_LOCALLY:
            return True
        found = _embedded_ipv4(found) or found
    return not found.is_global or found.is_multicast


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(address.packed[-4:])
    # RFC 4291 section 2.5.5.2; RFC 3056 section 2.
    return address.ipv4_mapped or address.sixtofour


_NAMES = "https_proxy, HTTPS_PROXY, all_proxy or ALL_PROXY, or unset it"


def environment_proxy(url: str) -> Secret | None:
    """Return the proxy that `requests` would use for a URL; its address may hold a password. None for none."""
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    # Libraries fail on these in ways that show the address, or say nothing of use.
    if not _is_address(found):
        raise ConfigurationError(
            "The environment names a proxy whose address is malformed.", key="https_proxy", remedy=f"Correct {_NAMES}."
        )
    if found.lower().startswith("socks") and find_spec("socks") is None:
        raise ConfigurationError(
            "The environment names a SOCKS proxy, which needs the package PySocks.",
            key="https_proxy",
            remedy=f"Install PySocks, or correct {_NAMES}.",
        )
    return Secret(found)


def _is_address(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_CHUNK_BYTES = 16 * 1024
_running: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("running_exchange", default=None)


class _PrivateAddress(Exception):
    """The host is at a private address, and the caller does not want to reach one."""


class Exchange:
    """Runs one request on a daemon thread; `abort` cuts its connections wherever it stands.

    Its lock covers the list of connections and whether they were cut; no I/O happens under it.

    Args:
        prepare: Makes the request; called on the thread, so that secrets are revealed in no frame of the caller.
        settings: How `requests` sends it.
        max_bytes: How many bytes of the body are kept.
        on_end: Called when the thread ends, late or not.
        refuses_private: Whether to hang up, before anything is sent, when the host turns out to be at an address
            inside a network. A proxy looks up the host itself, so nothing is known about it then.
        proxy: The proxy to go through; it may hold a password, so it is revealed only on the thread.
        extra_certificates: Authorities to trust besides those that `settings` names, in PEM form.
    """

    def __init__(  # noqa: PLR0913 - one request's circumstances
        self,
        prepare: Callable[[], requests.PreparedRequest],
        *,
        settings: Mapping[str, Any],
        max_bytes: int,
        on_end: Callable[[], None],
        refuses_private: bool = False,
        proxy: Secret | None = None,
        extra_certificates: str | None = None,
    ) -> None:
        self._prepare = prepare
        self._settings = settings
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._refuses_private = refuses_private
        self._proxy = proxy
        self.extra_certificates = extra_certificates
        self._reached_private = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._is_cut = False
        self._ended = threading.Event()
        self._outcome: RawAnswer | tuple[str, FailureKind] = ("nothing was sent", FailureKind.OTHER)

    def run(self, *, timeout_seconds: float) -> RawAnswer | None:
        """Carry the exchange out.

        Returns:
            The answer, or None when the deadline passed.
        """
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
        if isinstance(self._outcome, tuple):
            raise ExchangeFailed(*self._outcome)
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
            if self._refuses_private:
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
            self._outcome = ("its address is a private one, which this call does not accept", FailureKind.OTHER)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            self._outcome = _describe(error)
        finally:
            self._ended.set()
            self._on_end()

    def _send(self) -> RawAnswer:
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
            return RawAnswer(
                status=response.status_code,
                headers=headers,
                body=bytes(body),
                reached_private=self._reached_private,
            )


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


def _describe(error: Exception) -> tuple[str, FailureKind]:
    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return _describe_proxy_failure(text), FailureKind.PROXY
    if isinstance(error, requests.exceptions.SSLError):
        is_mistrusted = "CERTIFICATE_VERIFY" in text
        return "its TLS certificate could not be verified" if is_mistrusted else "TLS failed", FailureKind.TLS
    if isinstance(error, requests.exceptions.Timeout):
        return "it did not answer in time", FailureKind.OTHER
    if "NameResolutionError" in text:
        return "its name was not found", FailureKind.NAME
    if "refused" in text:
        return "the connection was refused", FailureKind.REFUSED
    return "the connection broke", FailureKind.OTHER


def _describe_proxy_failure(text: str) -> str:
    if "CERTIFICATE_VERIFY" in text:
        return "the proxy's TLS certificate could not be verified"
    if " 407 " in text:
        return "the proxy wants another user name and password"
    return "the proxy refused or did not answer"
