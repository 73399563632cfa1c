"""The HTTP listener for monitoring: `/metrics` for callers with a credential, `/health` and `/ready` for anyone.

Tornado's reads have a total deadline and a size limit, and idle connections cost it no thread.
"""

import asyncio
import enum
import json
import logging
import math
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
from tornado.web import Application, HTTPError, RequestHandler

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.config.access import READ_SCOPE, RateLimits
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError, PermissionDenied, Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.executors.launcher import run_in_thread
from micromegas_jupyter.server.authentication import Authenticator, build_limits
from micromegas_jupyter.server.settings import TlsFiles
from micromegas_jupyter.server.tls import HttpTls

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_READY_TIMEOUT_SECONDS: Final = 2.0
_READY_CACHE_SECONDS: Final = 1.0
_COLLECT_SECONDS: Final = 10.0
_COLLECT_THREADS: Final = 2
_REALM: Final = 'Bearer realm="micromegas"'
_MAX_CONNECTIONS: Final = 16
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


class NotReady(enum.StrEnum):
    """Why calls make no sense now; the values are what `/ready` shows."""

    STARTING = "starting"
    DRAINING = "draining"
    STORAGE = "storage"
    EXECUTORS = "executors"
    TIMEOUT = "timeout"  # the check took too long


Readiness = Callable[[], NotReady | None]


class ReadinessProbe:
    """Checks readiness, once at a time; concurrent requests share the answer. Belongs to one event loop.

    That the server is ready is cached for a second, so that probes cost nothing; that it is not ready, never.
    """

    def __init__(self, check: Readiness, *, clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._ready_until = float("-inf")
        self._answer: asyncio.Task[NotReady | None] | None = None

    async def check(self) -> NotReady | None:
        """Return why the server is not ready, None when it is."""
        if self._clock.monotonic() < self._ready_until:
            return None
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_task(self._find_answer())
        try:
            async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
                reason = await asyncio.shield(self._answer)
        except TimeoutError:
            return NotReady.TIMEOUT
        if reason is None:
            self._ready_until = self._clock.monotonic() + _READY_CACHE_SECONDS
        return reason

    async def _find_answer(self) -> NotReady | None:
        try:
            # Storage that hangs must delay neither other pages nor the end of the process.
            return await run_in_thread(self._check, name="readiness")
        except Exception:  # noqa: BLE001 - not knowing is an answer, too
            _LOG.exception("the readiness check failed")
            return NotReady.STORAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """What the pages need; `busy` are the connections whose request is being answered."""

    authenticator: Authenticator
    registries: Sequence[CollectorRegistry]
    readiness: ReadinessProbe
    needs_certificate: bool  # for the metrics
    threads: ThreadPoolExecutor
    busy: set[IOStream]


class _Page(RequestHandler):
    """A page that is read: the metrics, whether the process is alive, whether calls make sense now."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, pages: Pages) -> None:
        self._pages = pages
        self._stream = getattr(self.request.connection, "stream", None)

    def set_default_headers(self) -> None:
        # No version, and nobody is to store or interpret the answer.
        self.set_header("Server", "micromegas")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

    def prepare(self) -> None:
        if isinstance(self._stream, IOStream):
            self._pages.busy.add(self._stream)

    def on_finish(self) -> None:
        if isinstance(self._stream, IOStream):
            self._pages.busy.discard(self._stream)

    def compute_etag(self) -> None:
        """Send none: no answer is worth comparing with an earlier one."""

    async def get(self) -> None:
        match self.request.path:
            case "/health":
                self._finish_with(HTTPStatus.OK)
            case "/ready":
                await self._show_readiness()
            case "/metrics":
                await self._show_metrics()
            case _:
                self._finish_with(HTTPStatus.NOT_FOUND)

    head = get  # Tornado leaves the body out

    def write_error(self, status_code: int, **_details: object) -> None:
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        self._finish_with(HTTPStatus(status_code))

    def log_exception(self, *error: Any) -> None:
        # Defects, but not the mistakes of clients.
        if not isinstance(error[1], HTTPError):
            _LOG.error("a page could not be made", exc_info=error)

    def _finish_with(self, status: HTTPStatus, **headers: str) -> None:
        """Answer with a status, its phrase and these headers, whose names have underscores for hyphens."""
        self.set_status(status.value)
        for name, value in headers.items():
            self.set_header(name.replace("_", "-"), value)
        self.finish(f"{status.phrase}\n")

    async def _show_readiness(self) -> None:
        reason = await self._pages.readiness.check()
        self.set_header("Content-Type", "application/json")
        if reason is None:
            self.finish(json.dumps({"status": "ready"}) + "\n")
            return
        self.set_status(HTTPStatus.SERVICE_UNAVAILABLE.value)
        self.set_header("Retry-After", "1")
        self.finish(json.dumps({"status": "not ready", "reason": reason}) + "\n")

    async def _show_metrics(self) -> None:
        """Answer with the metrics, or say what is wrong with the credential as RFC 6750 section 3 asks."""
        if self._pages.needs_certificate and self.request.get_ssl_certificate(binary_form=True) is None:
            self._finish_with(HTTPStatus.FORBIDDEN)
            return
        caller = await self._authenticate()
        if caller is None:
            return
        if READ_SCOPE not in caller.scopes:
            self._pages.authenticator.record(
                self._describe(), "forbidden", reason="scope_missing", code=PermissionDenied.code, caller=caller
            )
            challenge = f'{_REALM}, error="insufficient_scope", scope="{READ_SCOPE}"'
            self._finish_with(HTTPStatus.FORBIDDEN, WWW_Authenticate=challenge)
            return

        def collect() -> bytes:
            return b"".join(generate_latest(registry) for registry in self._pages.registries)

        collecting = asyncio.get_running_loop().run_in_executor(self._pages.threads, collect)
        body = await asyncio.wait_for(collecting, _COLLECT_SECONDS)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(body)

    async def _authenticate(self) -> AuthContext | None:
        """Return the caller, None when the request has been answered already."""
        headers = {"authorization": tuple(self.request.headers.get_list("Authorization"))}
        try:
            return await self._pages.authenticator.authenticate(headers, self._describe)
        except Rejected:
            challenge = f'{_REALM}, error="invalid_token"' if headers["authorization"] else _REALM
            self._finish_with(HTTPStatus.UNAUTHORIZED, WWW_Authenticate=challenge)
        except ResourcesExhausted as error:
            seconds = math.ceil(error.retry_after_seconds or 1)
            self._finish_with(HTTPStatus.TOO_MANY_REQUESTS, Retry_After=str(seconds))
        except Unavailable:
            self._finish_with(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="1")
        return None

    def _describe(self) -> CallFacts:
        return CallFacts(method=f"{self.request.method} {self.request.path}", client_address=self.request.remote_ip)


class HttpEndpoint:
    """Answers `/metrics`, `/health` and `/ready` on a thread of its own.

    `start` and `stop` are for one thread at a time. Without a `validator` anyone sees the metrics; with authorities for
    clients in `tls_files`, only clients with a certificate. `listening` is its socket, once it runs.
    """

    def __init__(  # noqa: PLR0913 - where it listens and what it shows
        self,
        host: str,
        port: int,
        *,
        validator: TokenValidator | None,
        registries: Sequence[CollectorRegistry],
        readiness: Readiness,
        tls_files: TlsFiles | None = None,
        rate_limits: RateLimits | None = None,
    ) -> None:
        self._address = (host, port)
        self._validator = validator
        self._registries = tuple(registries)
        self._readiness = readiness
        self._tls_files = tls_files
        self._limits = build_limits(validator, rate_limits or RateLimits(), clock=SYSTEM_CLOCK)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.listening: socket.socket | None = None

    def start(self, taken: socket.socket | None = None) -> int:
        """Listen, on another process's `taken` socket if it has the address; return the port, or ConfigurationError."""
        tls = None if self._tls_files is None else HttpTls(self._tls_files)
        listening = self.listening = _listen(*self._address) if taken is None else self._adopt(taken)
        self._loop = loop = asyncio.new_event_loop()
        port: int = listening.getsockname()[1]
        # The socket listens already: who connects before the thread is ready waits a moment.
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
        """Stop listening and close all connections, after a moment for answers; repeated calls do nothing."""
        if self._thread is None or self._loop is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, tls: HttpTls | None) -> None:
        asyncio.set_event_loop(loop)
        authenticator = Authenticator(self._validator, check_seconds=_CHECK_SECONDS, limits=self._limits)
        threads = ThreadPoolExecutor(_COLLECT_THREADS, thread_name_prefix="metrics")
        registries = self._registries
        if tls is not None:
            registries = (*registries, CollectorRegistry())
            registries[-1].register(tls)
        pages = Pages(
            authenticator=authenticator,
            registries=registries,
            needs_certificate=self._tls_files is not None and self._tls_files.client_ca_file is not None,
            readiness=ReadinessProbe(self._readiness, clock=SYSTEM_CLOCK),
            threads=threads,
            busy=set(),
        )
        # Requests are not logged: refused ones are in the audit, the others come every few seconds.
        application = Application([(".*", _Page, {"pages": pages})], log_function=lambda _page: None)
        server = _BoundedServer(application, busy=pages.busy, tls=tls)
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
    """Serves one request per connection, and few connections.

    A new connection above the limit replaces the oldest whose request is not being answered, so that clients that
    connect and say nothing do not keep others out. Belongs to one event loop.
    """

    def initialize(  # type: ignore[override]
        self, application: Application, *, busy: set[IOStream], tls: HttpTls | None
    ) -> None:
        super().initialize(
            application,
            no_keep_alive=True,
            idle_connection_timeout=_READ_SECONDS,
            body_timeout=_READ_SECONDS,
            max_header_size=_MAX_HEADER_BYTES,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=_MAX_BUFFER_BYTES,
            ssl_options=None if tls is None else tls.context,
        )
        self._busy = busy
        self._open: list[IOStream] = []

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it when all others are being answered."""
        self._open = [other for other in self._open if not other.closed()]
        if len(self._open) >= _MAX_CONNECTIONS:
            idle = next((other for other in self._open if other not in self._busy), stream)
            idle.close()
            if idle is stream:
                return
        self._open.append(stream)
        # A client that does not read the answer is not waited for.
        asyncio.get_running_loop().call_later(_CONNECTION_SECONDS, stream.close)
        super().handle_stream(stream, address)

    @property
    def is_in_use(self) -> bool:
        """Whether there is a connection whose answer is not complete."""
        return not all(stream.closed() for stream in self._open)

    async def renew_certificate(self, tls: HttpTls) -> None:
        """Let new connections use what the certificate's files hold, from now on."""
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
