"""Listens for Flight calls: sockets, TLS, transport limits, startup, draining, and the server's thread."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_bytes
from typing import Final

import grpc
import psutil

from micromegas_jupyter.core.log_writer import LogWriter
from micromegas_jupyter.core.protocols import TokenValidator
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError, InternalError
from micromegas_jupyter.executors.ingest import IngestProcess, maintain
from micromegas_jupyter.executors.launcher import run_in_thread
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.gateway.forwarding import Gateway
from micromegas_jupyter.gateway.tables import EngineTables
from micromegas_jupyter.server.authentication import Authenticator, build_limits
from micromegas_jupyter.server.catalog import ServerFacts
from micromegas_jupyter.server.cut_off import CutOffService, DenyList
from micromegas_jupyter.server.exports import ExportRunner
from micromegas_jupyter.server.flight_methods import FlightMethods, QueryRunner
from micromegas_jupyter.server.flight_service import FlightService
from micromegas_jupyter.server.http.calls import HttpCalls
from micromegas_jupyter.server.ingest import IngestRunner, TableOperations
from micromegas_jupyter.server.monitoring import LoopWatch, Readiness, ReadinessProbe, ServerMetrics, Tracing
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tails import TailRunner
from micromegas_jupyter.server.tickets import MIN_KEY_BYTES, PreparedStatements, Signer, Tickets
from micromegas_jupyter.server.tls import flight_credentials

_START_SECONDS: Final = 90.0  # executors may need a minute on a busy machine
_STOP_SLACK_SECONDS: Final = 15.0
_DEFAULT_GRACE_SECONDS: Final = 5.0
_METADATA_SLACK_BYTES: Final = 16 * 1024
_UNREAD_BYTES: Final = 512 * 1024
_MAX_CONNECTIONS: Final = 100_000
_MAX_STREAMS_PER_CONNECTION: Final = 128
_HANDSHAKE_MILLISECONDS: Final = 10_000
_KEEPALIVE_MILLISECONDS: Final = 60_000
_KEEPALIVE_ANSWER_MILLISECONDS: Final = 20_000
_MIN_PING_INTERVAL_MILLISECONDS: Final = 10_000


class ServerThread:
    """A Flight SQL server on its own thread; `start` returns when it is ready, `stop` when it has stopped.

    Both are for one thread at a time. The pool is opened and closed with the server, but validator and tracing are not.
    Without a validator, everyone is an administrator. Without `ticket_keys`, tickets are invalid after a restart, and
    on other servers. With the tables of an `engine`, statements run there. `on_drained` is called on another thread
    after the last call, while the server's own records can still be stored. Calls are accepted only while their lines
    can be written to the `audit_log`.
    """

    def __init__(  # noqa: PLR0913 - the parts of a server
        self,
        *,
        pool: Pool,
        validator: TokenValidator | None,
        settings: FlightServerSettings,
        clock: Clock = SYSTEM_CLOCK,
        metrics: ServerMetrics | None = None,
        deny_list: DenyList | None = None,
        ticket_keys: Callable[[], Sequence[bytes]] | None = None,
        readiness: Readiness = lambda: None,
        tracing: Tracing | None = None,
        engine: EngineTables | None = None,
        on_drained: Callable[[], None] = lambda: None,
        audit_log: LogWriter | None = None,
    ) -> None:
        self.metrics = metrics or ServerMetrics()
        self._pool = pool
        self._gateway = None if engine is None else Gateway(pool, engine, max_rows=settings.max_rows)
        self._ingest_process = IngestProcess(pool) if pool.options.lake is not None else None
        self._audit_log = audit_log
        self.exports = ExportRunner(
            self._ingest_process,
            clock=clock,
            metrics=self.metrics,
            audit_log=audit_log,
        )
        #: Shared with the HTTP endpoint, so that rejections from the same address share one budget.
        self.limits = build_limits(validator, settings.rate_limits, clock=clock)
        #: Runs HTTP calls.
        self.http_calls = HttpCalls()
        self.loop_watch = LoopWatch()
        self.metrics.watch_loop(self.loop_watch)
        self._validator = validator
        self._settings = settings
        self._clock = clock
        self._deny_list = deny_list
        #: Rejects calls by users who are cut off, including over HTTP.
        self.check_caller = None if deny_list is None else deny_list.check_caller
        own_key = token_bytes(MIN_KEY_BYTES)
        self._signer = Signer(ticket_keys or (lambda: (own_key,)))
        self._readiness = readiness
        self._tracing = tracing
        self._on_drained = on_drained
        self._grace_seconds = _DEFAULT_GRACE_SECONDS
        self._reason = ""
        self._is_settled = threading.Event()
        self._failure: BaseException | None = None
        self.port = 0  # set once the server runs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def uri(self) -> str:
        """The running server's address for clients."""
        scheme = "grpc+tls" if self._settings.tls_files is not None else "grpc"
        return f"{scheme}://{self._host}:{self.port}"

    @property
    def is_storage_full(self) -> bool:
        """Whether the last write to the lake failed because its storage was full."""
        return self._ingest_process is not None and self._ingest_process.space.is_full

    @property
    def has_started(self) -> bool:
        """Whether the server has ever accepted calls, or failed to start."""
        return self._is_settled.is_set()

    @property
    def is_serving(self) -> bool:
        """Whether the server accepts calls."""
        is_running = self._thread is not None and self._thread.is_alive() and self._is_settled.is_set()
        return is_running and self._stop_requested is not None and not self._stop_requested.is_set()

    def start(self) -> None:
        """Start the thread and wait until the server is ready; raise ConfigurationError if it cannot listen."""
        self._thread = threading.Thread(target=self._run, name="flight-server", daemon=True)
        self._thread.start()
        if not self._is_settled.wait(_START_SECONDS) or isinstance(self._failure, TimeoutError):
            raise InternalError("The server did not start in time.", remedy="Start it again.") from self._failure
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self, grace_seconds: float = _DEFAULT_GRACE_SECONDS, *, reason: str = "") -> None:
        """Stop the server; calls may finish within `grace_seconds`, after which they fail with `reason`.

        Safe to call twice.
        """
        if self._thread is None:
            self._on_drained()
            self._pool.abandon()
            return
        if not self._thread.is_alive():
            return
        if self._loop is not None and self._stop_requested is not None:
            self._grace_seconds, self._reason = grace_seconds, reason
            self._loop.call_soon_threadsafe(self._stop_requested.set)
        self._thread.join(grace_seconds + _STOP_SLACK_SECONDS)

    @property
    def _host(self) -> str:
        return f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - `start` raises it in the caller's thread
            self._failure = error
        finally:
            self._is_settled.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.loop_watch.attach(self._loop)
        self.exports.attach()
        self._stop_requested = asyncio.Event()
        authenticator = Authenticator(
            self._validator,
            check_seconds=self._settings.token_check_seconds,
            limits=self.limits,
            check_caller=self.check_caller,
        )
        service, cut_offs = self._build_service(authenticator)
        watch = asyncio.create_task(cut_offs.watch())
        server: grpc.aio.Server | None = None
        maintenance: asyncio.Task[None] | None = None
        try:
            if self._gateway is not None:
                await self._gateway.open()
            await self._pool.open()
            if self._pool.options.lake is not None:
                maintenance = asyncio.create_task(maintain(self._pool, self.metrics.set_lake_status))
            server, _credentials = await self._listen(service)
            self._is_settled.set()
            await self._stop_requested.wait()
        finally:
            if server is not None:
                # On threads, because they read all of the machine's connections.
                await run_in_thread(lambda: _close_listeners(self.port), name="close-listeners")
                await asyncio.gather(
                    service.drain(self._grace_seconds, reason=self._reason), self.exports.drain(self._grace_seconds)
                )
                await run_in_thread(lambda: _shut_down_connections(self.port), name="close-connections")
                await server.stop(0)
            await asyncio.to_thread(self._on_drained)
            watch.cancel()
            if maintenance is not None:
                maintenance.cancel()
            await self._pool.close()
            if self._gateway is not None:
                await self._gateway.close()
            authenticator.close()
            self.loop_watch.stop()

    def _build_service(self, authenticator: Authenticator) -> tuple[FlightService, CutOffService]:
        settings, metrics, clock, pool = self._settings, self.metrics, self._clock, self._pool
        lake = pool.options.lake
        prepared = PreparedStatements(self._signer, settings=settings, clock=clock)
        metrics.prepared.set_function(lambda: len(prepared))
        metrics.watch_pool(pool)
        pool.on_end = metrics.count_end
        ingests = IngestRunner(self._ingest_process, settings=settings, clock=clock, metrics=metrics)
        operations = TableOperations(ingests, settings=settings, clock=clock, metrics=metrics)
        queries = QueryRunner(
            pool,
            self._gateway,
            settings=settings,
            clock=clock,
            metrics=metrics,
            deny_list=self._deny_list,
            operations=operations,
        )
        pool.on_denials_changed = queries.apply_denials
        cut_offs = CutOffService(self._deny_list, queries, port=lambda: self.port, clock=clock)
        methods = FlightMethods(
            queries=queries,
            prepared=prepared,
            tickets=Tickets(self._signer, life_seconds=settings.ticket_life_seconds, clock=clock),
            tails=TailRunner(
                pool,
                storage=None if lake is None or self._gateway is not None else Storage(lake),
                clock=clock,
                check_denials=queries.check_denials,
                is_stopping=lambda: self._stop_requested is not None and self._stop_requested.is_set(),
            ),
            ingests=ingests,
            operations=operations,
            cut_offs=cut_offs,
            facts=ServerFacts(
                takes_rows=pool.options.lake is not None, prepared_idle_seconds=settings.prepared_idle_seconds
            ),
            reload=getattr(self._validator, "reload", None),
            keys=getattr(self._validator, "user_keys", None),
            record=authenticator.record,
        )
        cut_offs.service = service = FlightService(
            methods=methods.by_name(),
            other_methods=self.exports.methods(),
            authenticator=authenticator,
            settings=settings,
            metrics=metrics,
            readiness=ReadinessProbe(self._readiness, clock=clock),
            tracing=self._tracing,
            audit_log=self._audit_log,
        )
        self.http_calls.attach(queries, service)
        return service, cut_offs

    async def _listen(self, service: FlightService) -> tuple[grpc.aio.Server, grpc.ServerCredentials | None]:
        """Return the server and its credentials, which must have the same lifetime."""
        settings = self._settings
        server = grpc.aio.server(
            handlers=(service,),
            options=_channel_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
        )
        address = f"{self._host}:{settings.port}"
        credentials = None if settings.tls_files is None else flight_credentials(settings.tls_files)
        try:
            if credentials is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise ConfigurationError(
                f"Cannot bind to {address}: the port is taken, the address does not belong to this machine, or the "
                "certificate and key do not match.",
                key="port",
                remedy="Choose another port, or 0 for any free one.",
            ) from None
        await server.start()
        return server, credentials


def _channel_options(settings: FlightServerSettings) -> tuple[tuple[str, int], ...]:
    # Calls continue when a connection reaches its maximum age, because there is no grace period by default.
    ages = {
        "grpc.max_connection_idle_ms": settings.connection_idle_seconds,
        "grpc.max_connection_age_ms": settings.connection_age_seconds,
    }
    return (
        *((name, round(seconds * 1000)) for name, seconds in ages.items() if seconds is not None),
        ("grpc.so_reuseport", int(settings.is_port_reserved)),
        ("grpc.max_receive_message_length", settings.max_receive_bytes),
        ("grpc.max_send_message_length", -1),
        # gRPC rejects randomly between the two limits, so the first is the documented one and the second is higher.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes + _METADATA_SLACK_BYTES),
        # By default, gRPC buffers 4 MiB or more of each message before the message is requested.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
        ("grpc.max_allowed_incoming_connections", max_connections()),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MILLISECONDS),
        ("grpc.http2.max_ping_strikes", 2),
    )


def max_connections() -> int:
    """Return the maximum number of connections under the open-file limit; executors and uploads also need files."""
    if sys.platform == "win32":
        return _MAX_CONNECTIONS
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_CONNECTIONS if limit == resource.RLIM_INFINITY else min(_MAX_CONNECTIONS, max(16, limit // 3))


# gRPC's own shutdown ends new calls with CANCELLED, as if the client had canceled them. If the listeners are closed
# first and the connections are shut down last, these calls end with UNAVAILABLE.


def _close_listeners(port: int) -> None:
    """Stop accepting connections on a port even though gRPC does not expose its sockets.

    An idle socket takes over each listener's descriptor, and the kernel closes the listener. Shutting it down instead
    would wake gRPC, which then logs "Closing acceptor. Failed accept4" as an error.
    """
    for descriptor in _find_sockets(port, is_listening=True):
        with suppress(OSError), socket.socket() as idle:
            os.dup2(idle.fileno(), descriptor, inheritable=False)


def _shut_down_connections(port: int) -> None:
    """Shut down this process's connections on a port."""
    for descriptor in _find_sockets(port, is_listening=False):
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
            if duplicate.getsockname()[1] == port:  # it may have been closed and the descriptor reused
                duplicate.shutdown(socket.SHUT_RDWR)


def _find_sockets(port: int, *, is_listening: bool) -> list[int]:
    """Return the descriptors of this process's listeners or connections on a port."""
    with suppress(psutil.Error):
        return [
            found.fd
            for found in psutil.Process().net_connections("tcp")
            if found.fd >= 0 and found.laddr[1] == port and (found.status == psutil.CONN_LISTEN) is is_listening
        ]
    return []


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":  # uvloop is not available
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()  # uses a sixth less CPU time per call
