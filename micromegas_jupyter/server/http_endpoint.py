"""A small HTTP listener beside the Flight server, for monitoring: sockets, TLS, limits of connections and time.

What the pages show is `http_pages`' job. Tornado does the HTTP: Jupyter brings it along, its reads have a total
deadline and a size limit (the standard library's server has neither), and idle connections cost it no thread.
"""

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from prometheus_client import CollectorRegistry
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.protocols import TokenValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError, InternalError
from micromegas_jupyter.server.authentication import Authenticator, build_limits
from micromegas_jupyter.server.http_pages import HealthPage, MetricsPage, Page, Pages, ReadyPage
from micromegas_jupyter.server.readiness import Readiness, ReadinessProbe
from micromegas_jupyter.server.tls import HttpTls
from micromegas_jupyter.server.tls_files import TlsFiles

_MAX_CONNECTIONS: Final = 16
_BACKLOG: Final = 128
_READ_SECONDS: Final = 5.0
_CONNECTION_SECONDS: Final = 60.0
_CHECK_SECONDS: Final = 10.0
_MAX_HEADER_BYTES: Final = 32 * 1024  # a token has at most 16 KiB
_MAX_BODY_BYTES: Final = 1024
_MAX_BUFFER_BYTES: Final = 64 * 1024
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 10.0
_LAST_ANSWERS_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.02
_COLLECT_THREADS: Final = 2
_RENEW_SECONDS: Final = 1.0


class HttpEndpoint:
    """Answers `/metrics`, `/health` and `/ready` on a thread of its own.

    `start` and `stop` are for one thread at a time. The validator belongs to whoever passes it in.

    Args:
        host: The address to listen on.
        port: The port, 0 for any free one.
        validator: Says who may see the metrics; None shows them to anybody.
        registries: The metrics.
        readiness: Tells whether calls make sense now; may block.
        tls_files: The certificate and its key, with which the endpoint speaks TLS; None for plain text. With
            authorities for clients, the metrics are shown to clients with a certificate only.
        rate_limits: How often somebody may ask, and be refused.
        clock: Measures the rates, and how old an answer about readiness is.

    Attributes:
        listening: The socket that it listens on, once it runs.
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
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._address = (host, port)
        self._validator = validator
        self._registries = tuple(registries)
        self._readiness = readiness
        self._clock = clock
        self._tls_files = tls_files
        self._limits = build_limits(validator, rate_limits or RateLimits(), clock=clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.listening: socket.socket | None = None

    def start(self, taken: socket.socket | None = None) -> int:
        """Start to listen and return the port.

        Args:
            taken: Another process's socket that listens already, to go on with if it has the address; else closed.

        Raises:
            ConfigurationError: The address, the certificate or the key cannot be used.
        """
        tls = None if self._tls_files is None else HttpTls(self._tls_files)
        listening = self.listening = _listen(*self._address) if taken is None else self._adopt(taken)
        loop = asyncio.new_event_loop()
        is_ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(loop, listening, tls, is_ready), name="http-endpoint", daemon=True
        )
        self._thread.start()
        port: int = listening.getsockname()[1]
        if not is_ready.wait(_START_SECONDS):
            raise InternalError("The HTTP endpoint did not start in time.", remedy="Start the server again.")
        self._loop = loop
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

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        tls: HttpTls | None,
        is_ready: threading.Event,
    ) -> None:
        asyncio.set_event_loop(loop)
        authenticator = Authenticator(self._validator, check_seconds=_CHECK_SECONDS, limits=self._limits)
        threads = ThreadPoolExecutor(_COLLECT_THREADS, thread_name_prefix="metrics")
        pages = Pages(
            authenticator=authenticator,
            registries=self._registries if tls is None else (*self._registries, _registry_of(tls)),
            needs_certificate=self._tls_files is not None and self._tls_files.client_ca_file is not None,
            readiness=ReadinessProbe(self._readiness, clock=self._clock),
            threads=threads,
            busy=set(),
        )
        server = _BoundedServer(
            _build_application(pages), ssl_options=None if tls is None else tls.context, busy=pages.busy
        )
        server.add_sockets([listening])
        if tls is not None:
            server.follow(tls, loop)
        loop.call_soon(is_ready.set)
        try:
            loop.run_forever()
        finally:
            server.stop()
            loop.run_until_complete(_wind_up(server))
            authenticator.close()
            threads.shutdown(wait=False, cancel_futures=True)
            loop.close()


class _BoundedServer(HTTPServer):
    """Serves one request per connection, and keeps few connections.

    For a new connection above the limit the oldest goes whose request is not being answered, so that those who
    connect and say nothing do not keep others out. Belongs to one event loop.
    """

    def initialize(self, application: Application, *, busy: set[IOStream], **options: Any) -> None:  # type: ignore[override]
        """Take over what the base class makes of its arguments, with the limits."""
        super().initialize(
            application,
            no_keep_alive=True,
            idle_connection_timeout=_READ_SECONDS,
            body_timeout=_READ_SECONDS,
            max_header_size=_MAX_HEADER_BYTES,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=_MAX_BUFFER_BYTES,
            **options,
        )
        self._busy = busy
        self._open: list[IOStream] = []

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it when all others are being answered."""
        self._open = [kept for kept in self._open if not kept.closed()]
        if len(self._open) >= _MAX_CONNECTIONS:
            idle = next((kept for kept in self._open if kept not in self._busy), stream)
            idle.close()
            if idle is stream:
                return
        self._open.append(stream)
        # Whoever does not take the answer is not waited for.
        asyncio.get_running_loop().call_later(_CONNECTION_SECONDS, stream.close)
        super().handle_stream(stream, address)

    @property
    def is_in_use(self) -> bool:
        """Whether there is a connection whose answer is not complete."""
        return not all(kept.closed() for kept in self._open)

    def follow(self, tls: HttpTls, loop: asyncio.AbstractEventLoop) -> None:
        """Have new connections use what the certificate's files hold, from now on."""
        self._following = loop.create_task(self._follow(tls))

    async def _follow(self, tls: HttpTls) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if tls.renew():
                self.ssl_options = tls.context


def _registry_of(tls: HttpTls) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(tls)
    return registry


async def _wind_up(server: _BoundedServer) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_ANSWERS_SECONDS):
            while server.is_in_use:  # noqa: ASYNC110 - Tornado tells nobody
                await asyncio.sleep(_LOOK_SECONDS)
    await asyncio.wait_for(server.close_all_connections(), _STOP_SECONDS / 2)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _build_application(pages: Pages) -> Application:
    given = {"pages": pages}
    return Application(
        [("/metrics", MetricsPage, given), ("/health", HealthPage, given), ("/ready", ReadyPage, given)],
        default_handler_class=Page,
        default_handler_args=given,
        log_function=_log_nothing,
    )


def _log_nothing(_page: Page) -> None:
    """Requests are not logged: refused ones are in the audit, the others come every few seconds."""


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError:
        raise ConfigurationError(
            f"The HTTP endpoint cannot listen on {host}, port {port}: the port is taken, or the address is not this "
            "machine's.",
            key="http_port",
            remedy="Choose another port, or 0 for any free one.",
        ) from None
    listening.setblocking(False)
    return listening
