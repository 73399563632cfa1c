"""The HTTP listener: OTLP and `/metrics` for callers with a credential, and `/health` and `/ready` for anyone.

Tornado's reads have a total deadline and a size limit, and idle connections don't use threads.
"""

import asyncio
import copy
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from micromegas_jupyter.access.validator import CallLimits
from micromegas_jupyter.config.access import METRICS_SCOPE, READ_SCOPE
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError, PermissionDenied, Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.server.authentication import Authenticator, CheckCaller
from micromegas_jupyter.server.exports import ExportRunner
from micromegas_jupyter.server.http.json_page import Site
from micromegas_jupyter.server.http.mcp_page import METADATA_PATHS, PATH, DisabledPage, McpPage, McpSite, MetadataPage
from micromegas_jupyter.server.http.pages import (
    PATHS,
    REALM,
    UPSTREAM_PATHS,
    Connections,
    ExportPage,
    Page,
    UpstreamPage,
)
from micromegas_jupyter.server.http.sql_page import PATH as SQL_PATH
from micromegas_jupyter.server.http.sql_page import SqlPage
from micromegas_jupyter.server.monitoring import NotReady, Readiness, ReadinessProbe
from micromegas_jupyter.server.settings import TlsFiles
from micromegas_jupyter.server.tls import HttpTls

_COLLECT_SECONDS: Final = 10.0
_COLLECT_THREADS: Final = 2
_MAX_CONNECTIONS: Final = 16
_MAX_CLIENTS: Final = 512
_BACKLOG: Final = 128
_READ_SECONDS: Final = 5.0
_CONNECTION_SECONDS: Final = 60.0
_CHECK_SECONDS: Final = 10.0
_MAX_HEADER_BYTES: Final = 32 * 1024  # a token has at most 16 KiB
_MAX_BODY_BYTES: Final = 1024
_MAX_BUFFER_BYTES: Final = 64 * 1024
_STOP_SECONDS: Final = 10.0
_LAST_ANSWERS_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.02
_RENEW_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """The data of the monitoring pages."""

    registries: Sequence[CollectorRegistry]
    readiness: ReadinessProbe
    is_alive: Callable[[], bool]
    threads: ThreadPoolExecutor


class _MonitoringPage(Page):
    """A monitoring page: metrics, liveness, or readiness."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, connections: Connections, monitoring: Monitoring) -> None:  # type: ignore[override]
        super().initialize(connections)
        self._monitoring = monitoring

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Connection", "close")

    async def get(self) -> None:
        match self.request.path:
            case "/health":
                is_alive = self._monitoring.is_alive()
                self.finish_with(HTTPStatus.OK if is_alive else HTTPStatus.SERVICE_UNAVAILABLE)
            case "/ready":
                await self._show_readiness()
            case "/metrics":
                await self._show_metrics()
            case _:
                self.finish_with(HTTPStatus.NOT_FOUND)

    head = get  # Tornado omits the body

    async def _show_readiness(self) -> None:
        reason = await self._monitoring.readiness.check()
        if reason is NotReady.LAKE_DISK and self.get_query_argument("for", "") == "reads":
            reason = None
        self.set_header("Content-Type", "application/json")
        if reason is None:
            self.finish(json.dumps({"status": "ready"}) + "\n")
            return
        self.set_status(HTTPStatus.SERVICE_UNAVAILABLE.value)
        self.set_header("Retry-After", "1")
        self.finish(json.dumps({"status": "not ready", "reason": reason}) + "\n")

    async def _show_metrics(self) -> None:
        """Respond with the metrics, or with the credential's problem as RFC 6750 section 3 requires."""
        if self.lacks_certificate:
            self.finish_with(HTTPStatus.FORBIDDEN)
            return
        caller = await self._authenticate()
        if caller is None:
            return
        if caller.scopes.isdisjoint({METRICS_SCOPE, READ_SCOPE}):
            self._connections.authenticator.record(
                self.describe(), "forbidden", reason="scope_missing", code=PermissionDenied.code, caller=caller
            )
            challenge = f'{REALM}, error="insufficient_scope", scope="{METRICS_SCOPE}"'
            self.finish_with(HTTPStatus.FORBIDDEN, WWW_Authenticate=challenge)
            return

        def collect() -> bytes:
            return b"".join(generate_latest(registry) for registry in self._monitoring.registries)

        collecting = asyncio.get_running_loop().run_in_executor(self._monitoring.threads, collect)
        body = await asyncio.wait_for(collecting, _COLLECT_SECONDS)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(body)

    async def _authenticate(self) -> AuthContext | None:
        """Return the caller, or None if a response was already sent."""
        try:
            return await self.authenticate()
        except Rejected:
            has_credential = bool(self.request.headers.get_list("Authorization"))
            challenge = f'{REALM}, error="invalid_token"' if has_credential else REALM
            self.finish_with(HTTPStatus.UNAUTHORIZED, WWW_Authenticate=challenge)
        except ResourcesExhausted as error:
            seconds = math.ceil(error.retry_after_seconds or 1)
            self.finish_with(HTTPStatus.TOO_MANY_REQUESTS, Retry_After=str(seconds))
        except Unavailable:
            self.finish_with(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="1")
        return None


class HttpEndpoint:
    """Serves `/metrics`, `/health`, `/ready`, agents (`mcp`), queries (`sql`), and `exports`, on its own thread.

    `start` and `stop` are for one thread at a time. Without a `validator`, the metrics are public; with client
    authorities in `tls_files`, they require a client certificate. `listening` is the running endpoint's socket.
    """

    def __init__(  # noqa: PLR0913 - where it listens and what it shows
        self,
        host: str,
        port: int,
        *,
        validator: TokenValidator | None,
        registries: Sequence[CollectorRegistry],
        readiness: Readiness,
        is_alive: Callable[[], bool] = lambda: True,
        exports: ExportRunner | None = None,
        mcp: McpSite | None = None,
        sql: Site | None = None,
        tls_files: TlsFiles | None = None,
        limits: CallLimits | None = None,
        trusted_proxies: frozenset[str] = frozenset(),
        check_caller: CheckCaller | None = None,
    ) -> None:
        self._address = (host, port)
        self._validator = validator
        self._registries = tuple(registries)
        self._readiness = readiness
        self._is_alive = is_alive
        self._exports = exports
        self._mcp = mcp
        self._sql = sql
        self._tls_files = tls_files
        self._trusted_proxies = trusted_proxies
        self._check_caller = check_caller
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.listening: socket.socket | None = None

    def start(self, taken: socket.socket | None = None) -> int:
        """Listen, using another process's `taken` socket if it fits; return the port, or raise ConfigurationError."""
        tls = None if self._tls_files is None else HttpTls(self._tls_files)
        listening = self.listening = _listen(*self._address) if taken is None else self._adopt(taken)
        self._loop = loop = asyncio.new_event_loop()
        port: int = listening.getsockname()[1]
        # The socket is already listening, so clients that connect before the thread is ready wait a moment.
        self._thread = threading.Thread(
            target=self._run, args=(loop, listening, tls), name="http-endpoint", daemon=True
        )
        self._thread.start()
        return port

    def _adopt(self, taken: socket.socket) -> socket.socket:
        host, port = self._address
        with suppress(OSError):
            address = socket.getaddrinfo(host, port or taken.getsockname()[1], type=socket.SOCK_STREAM)[0][-1]
            if address == taken.getsockname():
                taken.setblocking(False)
                return taken
        taken.close()
        return _listen(host, port)

    def stop(self) -> None:
        """Stop listening and, after a brief wait for responses, close all connections; repeated calls do nothing."""
        if self._thread is None or self._loop is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, tls: HttpTls | None) -> None:
        asyncio.set_event_loop(loop)
        authenticator = Authenticator(
            self._validator, check_seconds=_CHECK_SECONDS, limits=self._limits, check_caller=self._check_caller
        )
        threads = ThreadPoolExecutor(_COLLECT_THREADS, thread_name_prefix="metrics")
        registries = self._registries
        if tls is not None:
            registries = (*registries, CollectorRegistry())
            registries[-1].register(tls)
        connections = Connections(
            authenticator=authenticator,
            needs_certificate=self._tls_files is not None and self._tls_files.client_ca_file is not None,
            trusted_proxies=self._trusted_proxies,
            busy=set(),
            receiving=set(),
            lasting=set(),
            unused=set(),
        )
        monitoring = Monitoring(
            registries=registries,
            readiness=ReadinessProbe(self._readiness, clock=SYSTEM_CLOCK),
            is_alive=self._is_alive,
            threads=threads,
        )
        routes: list[tuple[str, type[Page], dict[str, object]]] = [
            (UPSTREAM_PATHS, UpstreamPage, {"connections": connections})
        ]
        if self._exports is not None:
            found = {"connections": connections, "exports": self._exports}
            routes += [(re.escape(path), ExportPage, found) for path in PATHS]
        pages: tuple[tuple[str, type[Page], Site | None], ...] = (
            (PATH, McpPage, self._mcp), (METADATA_PATHS, MetadataPage, self._mcp), (SQL_PATH, SqlPage, self._sql),
        )  # fmt: skip
        for path, page, site in pages:
            options = {"connections": connections, **({} if site is None else {"site": site})}
            routes.append((path, DisabledPage if site is None else page, options))
        routes.append((".*", _MonitoringPage, {"connections": connections, "monitoring": monitoring}))
        # Requests are not logged, because rejected ones are audited and others arrive every few seconds.
        application = Application(routes, log_function=lambda _page: None)
        is_small = self._exports is None and self._mcp is None and self._sql is None
        max_connections = _MAX_CONNECTIONS if is_small else _MAX_CLIENTS
        server = _BoundedServer(application, connections=connections, max_connections=max_connections, tls=tls)
        server.add_sockets([listening])
        renewing = None if tls is None else loop.create_task(server.renew_certificate(tls))
        try:
            loop.run_forever()
        finally:
            if renewing is not None:
                renewing.cancel()
            server.stop()
            loop.run_until_complete(_wind_up(server))
            authenticator.close()
            threads.shutdown(wait=False, cancel_futures=True)
            loop.close()


class _BoundedServer(HTTPServer):
    """Serves a limited number of connections, which are closed after a while unless exporters are using them.

    A new connection above the limit replaces the oldest one without a request in progress or, if there is none, the
    oldest one whose request is still arriving, so that silent or slow clients do not block others. Belongs to one event
    loop.
    """

    def initialize(  # type: ignore[override]
        self, application: Application, *, connections: Connections, max_connections: int, tls: HttpTls | None
    ) -> None:
        super().initialize(
            application,
            idle_connection_timeout=_READ_SECONDS,
            body_timeout=_READ_SECONDS,
            max_header_size=_MAX_HEADER_BYTES,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=_MAX_BUFFER_BYTES,
            ssl_options=None if tls is None else tls.context,
        )
        self._busy, self._receiving, self._lasting = connections.busy, connections.receiving, connections.lasting
        self._unused = connections.unused
        self._max_connections = max_connections
        self._open: list[IOStream] = []

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it if all others are being served."""
        self._open = [other for other in self._open if not other.closed()]
        self._lasting.intersection_update(self._open)
        self._unused.intersection_update(self._open)
        if len(self._open) >= self._max_connections:
            idle = (other for other in self._open if other not in self._busy)
            arriving = (other for other in self._open if other in self._receiving)
            replaced = next(idle, None) or next(arriving, stream)
            replaced.close()
            if replaced is stream:
                return
        self._open.append(stream)
        self._unused.add(stream)
        asyncio.get_running_loop().call_later(_CONNECTION_SECONDS, self._close_old, stream)
        self.conn_params = copy.copy(self.conn_params)  # one per connection, because timeouts differ
        super().handle_stream(stream, address)

    def _close_old(self, stream: IOStream) -> None:
        """Close an old connection, unless its request is being served or exporters are using it."""
        if stream.closed():
            return
        # Don't wait for clients that are not reading the response.
        if stream in self._busy or (stream in self._lasting and not stream.writing()):
            asyncio.get_running_loop().call_later(_CONNECTION_SECONDS, self._close_old, stream)
        else:
            stream.close()

    @property
    def is_in_use(self) -> bool:
        """Whether a client is waiting for a response, or has connected and may be about to send its request."""
        waiting = self._busy | self._unused
        return any(not stream.closed() and (stream in waiting or stream.writing()) for stream in self._open)

    async def renew_certificate(self, tls: HttpTls) -> None:
        """Let new connections use the current contents of the certificate files."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if tls.renew():
                self.ssl_options = tls.context


async def _wind_up(server: _BoundedServer) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_ANSWERS_SECONDS):
            while server.is_in_use:  # noqa: ASYNC110 - Tornado has no event for it
                await asyncio.sleep(_POLL_SECONDS)
    await asyncio.wait_for(server.close_all_connections(), _STOP_SECONDS / 2)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError:
        raise ConfigurationError(
            f"Cannot bind the HTTP endpoint to {host}, port {port}: the port is taken, or the address does not belong "
            "to this machine.",
            key="http_port",
            remedy="Choose another port, or 0 for any free one.",
        ) from None
    listening.setblocking(False)
    return listening
