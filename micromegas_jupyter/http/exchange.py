"""One request and its answer on a thread of its own, so that one deadline holds against every way to stall.

`requests` bounds each read, not the call: a server that sends a byte a second never trips its timeout. What to
send and what the answer means are left to others.
"""

from __future__ import annotations

import contextvars
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from micromegas_jupyter.http.answers import RawAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CHUNK_BYTES = 16 * 1024
_running: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("running_exchange", default=None)


class ExchangeFailed(Exception):
    """The network gave no answer; `args[0]` says why in words that hold no address and no secret."""


class Exchange:
    """Runs one request on a daemon thread; `abort` cuts its connections wherever it stands.

    Its lock covers the list of connections and whether they were cut; no I/O happens under it.

    Args:
        prepare: Makes the request; called on the thread, so that secrets are revealed in no frame of the caller.
        on_end: Called when the thread ends, late or not.
    """

    def __init__(
        self,
        prepare: Callable[[], requests.PreparedRequest],
        *,
        settings: Mapping[str, Any],
        max_bytes: int,
        on_end: Callable[[], None],
    ) -> None:
        self._prepare = prepare
        self._settings = settings
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._is_cut = False
        self._ended = threading.Event()
        self._outcome: RawAnswer | str = "nothing was sent"

    def run(self, *, timeout_seconds: float) -> RawAnswer | None:
        """Carry the exchange out.

        Returns:
            The answer, or None when the deadline passed.

        Raises:
            ExchangeFailed: The network gave no answer.
        """
        thread = threading.Thread(target=self._work, name="micromegas-provider-call", daemon=True)
        thread.start()
        try:
            in_time = self._ended.wait(timeout_seconds)
        finally:
            self.abort()
        if not in_time:
            return None
        if isinstance(self._outcome, str):
            raise ExchangeFailed(self._outcome)
        return self._outcome

    def abort(self) -> None:
        """Cut every connection of this exchange, now and later; safe to call twice and from any thread."""
        with self._lock:
            self._is_cut = True
            connections, self._connections = self._connections, []
        for connection in connections:
            _cut(connection)

    def watch(self, connection: socket.socket) -> None:
        """Remember a new connection so that it can be cut."""
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
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            self._outcome = _describe(error)
        finally:
            self._ended.set()
            self._on_end()

    def _send(self) -> RawAnswer:
        with closing(_WatchedAdapter()) as adapter:
            response = adapter.send(self._prepare(), stream=True, **self._settings)
            body = bytearray()
            while len(body) <= self._max_bytes:
                chunk = response.raw.read(min(_CHUNK_BYTES, self._max_bytes + 1 - len(body)), decode_content=False)
                if not chunk:
                    break
                body += chunk
            headers = {name.lower(): value for name, value in response.headers.items()}
            return RawAnswer(status=response.status_code, headers=headers, body=bytes(body))


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster
    finally:
        connection.close()


def _watch_connection(connection: socket.socket) -> socket.socket:
    exchange = _running.get()
    if exchange is not None:
        exchange.watch(connection)
    return connection


class _WatchedConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _watch_connection(super()._new_conn())


class _WatchedTlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _watch_connection(super()._new_conn())


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


def _describe(error: Exception) -> str:
    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused or did not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate could not be verified" if "CERTIFICATE_VERIFY" in text else "TLS failed"
    if isinstance(error, requests.exceptions.Timeout):
        return "it did not answer in time"
    if "NameResolutionError" in text:
        return "its name was not found"
    if "refused" in text:
        return "the connection was refused"
    return "the connection broke"
