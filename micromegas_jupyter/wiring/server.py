"""Connects the validator, executors, lake or served folder, recorder, and Flight service to form a running server."""

import logging
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final, Self

from micromegas_jupyter import __version__
from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.access.config import ReloadingValidator, read_access_settings
from micromegas_jupyter.config.access import AccessSettings, LegacyApiKeys, RateLimits
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.files import TemporaryFolder, remove_abandoned
from micromegas_jupyter.core.log_writer import LogWriter
from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, process_variables
from micromegas_jupyter.core.text import is_loopback
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, Unavailable, UsageError
from micromegas_jupyter.executors.launcher import can_fork, open_launcher
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.executors.settings import IngestSettings, PoolSettings, WorkerOptions
from micromegas_jupyter.lake.lake import Lake, is_lake, make_lake
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.server.cut_off import DenyList
from micromegas_jupyter.server.flight_server import ServerThread
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.http.json_page import Site
from micromegas_jupyter.server.http.mcp_page import McpSite
from micromegas_jupyter.server.monitoring import (
    MAX_ALIVE_LAG_SECONDS,
    MAX_READY_LAG_SECONDS,
    NotReady,
    ServerMetrics,
    open_tracing,
)
from micromegas_jupyter.server.recorder.recorder import MeasureRow, Recorder
from micromegas_jupyter.server.settings import FlightServerSettings, TlsFiles
from micromegas_jupyter.server.tickets import MIN_KEY_BYTES, TicketKeyFile
from micromegas_jupyter.telemetry.conversion import QUERY_AUDIT_TARGET
from micromegas_jupyter.telemetry.tables import nanoseconds_since_epoch
from micromegas_jupyter.wiring.engines import build_engine, check_no_scan_limit, check_sql_parser, warn_of_open_engine
from micromegas_jupyter.wiring.take_over import (
    ReservedPort,
    Taken,
    TakeOverListener,
    find_take_over_address,
    is_take_over_supported,
    take_over,
)

# These loggers record other users' requests or table names, and a server stores its log in the lake that it serves.
_LOGGERS_OF_OTHERS: Final = ("access", "audit", "engine", "executors", "lake", "server", "supervisor")
DEFAULT_ROW_FILTERS: Final = {
    "log_entries": f"target IS NULL OR NOT (target = '{QUERY_AUDIT_TARGET}' OR "
    + " OR ".join(
        f"target = 'micromegas_jupyter.{name}' OR target LIKE 'micromegas_jupyter.{name}.%'"
        for name in _LOGGERS_OF_OTHERS
    )
    + ")"
}

_REWRITING: Final = "micromegas_jupyter.gateway.spark"
_GRPC: Final = "grpc"
_HTTP: Final = "http"
_TICKET_KEY: Final = "ticket_key"
_MIB: Final = 1024 * 1024
_MAX_POOL_MIB: Final = 512
_DEFAULT_SPARE_EXECUTORS: Final = 4
#: Each takes two seconds to start on systems without fork.
_MAX_SPAWNED_IDLE: Final = 2
_LAST_WRITE_SECONDS: Final = 5.0
_MIN_FREE_BYTES: Final = 64 * _MIB
_TLS_REMEDY: Final = "Specify --tls-certificate and --tls-key, or add --insecure behind a TLS proxy."
_LOG: Final = logging.getLogger("micromegas_jupyter.server")

_DENIALS_FILE: Final = "_micromegas/query_denials.json"
_SPILL_PREFIX: Final = "micromegas-server-"
_MAX_SHOWN_TABLES: Final = 20


class ServerStack:
    """A running server with its executors, lake, and recorder; a context manager that starts and stops them.

    `environ` configures who may call (see `validator_from_environment`); `program` is the name under which the server
    records itself. A later server may take over the ports of one that `is_replaceable`. The last of the `log_writers`
    writes the audit: calls are accepted only while it works.
    """

    def __init__(  # noqa: PLR0913 - the parts of a process
        self,
        settings: ServerSettings,
        *,
        environ: Mapping[str, str] | None = None,
        program: str = "micromegas serve",
        spare_executors: int = _DEFAULT_SPARE_EXECUTORS,
        is_replaceable: bool = False,
        log_writers: Sequence[LogWriter] = (),
    ) -> None:
        check_exposure(settings)
        check_sql_parser()
        self.settings = settings
        named = {"MICROMEGAS_ACCESS_CONFIG": settings.access_config, "MICROMEGAS_API_KEY_FILE": settings.api_key_file}
        files = {variable: str(path) for variable, path in named.items() if path is not None}
        self._environ = process_variables({**process_variables(environ), **files})
        if settings.disable_auth:
            _check_unused_access(self._environ)
        self._program = program
        self._is_replaceable = is_replaceable
        self._log_writers = log_writers
        self._engine = build_engine(settings)
        self._storage: Storage | None
        self._tables: TableSource
        if self._engine is None:
            self._storage, self._tables = open_tables(settings.lake)
            self.lake = self._tables if isinstance(self._tables, Lake) else None
        else:
            self._storage, self.lake = open_lake(settings.lake)
            self._tables = self._engine
        self._recorder: Recorder | None = None
        self._ticket_keys = None if settings.ticket_key_file is None else TicketKeyFile(settings.ticket_key_file)
        self._taken = self._take_over()
        sockets, state = ({}, {}) if self._taken is None else (self._taken.sockets, self._taken.state)
        self._ticket_key = state.get(_TICKET_KEY) or SYSTEM_RANDOMNESS.token_urlsafe(MIN_KEY_BYTES)
        self._port = None
        if is_take_over_supported():
            self._port = ReservedPort(settings.host, settings.port, taken=sockets.get(_GRPC))
        self._listener: TakeOverListener | None = None
        #: Called on another thread when a later server has taken over the ports, so that this one stops.
        self.on_taken: Callable[[], None] = lambda: None
        try:
            self._build(spare_executors)
        except BaseException:
            self._release_ports()
            raise

    def _build(self, spare_executors: int) -> None:
        settings = self.settings
        denials_file = find_denials_file(settings, None if self.lake is None else self._storage)
        self._deny_list = None if denials_file is None else DenyList(denials_file, on_denied=self._record_denial)
        self._spill_folder = make_spill_folder(settings.spill_directory)
        worker_options = build_worker_options(
            settings,
            lake=None if self.lake is None else self._storage,
            denials_file=denials_file,
            spill_folder=self._spill_folder.path,
            has_engine=self._engine is not None,
        )
        # The process that executors are forked from starts while this one reads the configuration.
        launcher = open_launcher(worker_options)
        self.validator: ReloadingValidator | None = None
        try:
            if not settings.disable_auth:
                self.validator = validator_from_environment(
                    self._environ,
                    legacy_api_keys=LegacyApiKeys.ON if settings.enable_legacy_api_keys else None,
                    # An engine's tables are not known yet, but conditions are checked again when they are used.
                    check=self._check_role_conditions if self._engine is None else check_no_scan_limit,
                )
        except BaseException:
            launcher.abandon()
            self._spill_folder.close()
            raise
        self.metrics = ServerMetrics()
        self.metrics.watch_log(self._log_writers)
        rate_limits = RateLimits() if self.validator is None else self.validator.settings.rate_limits
        self._tracing = open_tracing(self._environ)
        self._pool = Pool(
            launcher,
            self._tables,
            settings=build_pool_settings(settings, spare_executors=spare_executors),
            options=worker_options,
        )
        self._server = ServerThread(
            pool=self._pool,
            validator=self.validator,
            settings=build_flight_settings(
                settings, rate_limits=rate_limits, reserved_port=None if self._port is None else self._port.number
            ),
            metrics=self.metrics,
            deny_list=self._deny_list,
            ticket_keys=self._find_ticket_keys,
            readiness=self.readiness,
            tracing=self._tracing,
            engine=self._engine,
            on_drained=self._end_recording,
            audit_log=self._audit_log,
        )
        self._readiness_checks: tuple[tuple[NotReady, Callable[[], bool]], ...] = (
            (NotReady.LOOP, lambda: self._server.loop_watch.lag_seconds <= MAX_READY_LAG_SECONDS),
            (NotReady.LOG, lambda: self._audit_log is None or self._audit_log.problem is None),
            (NotReady.EXECUTORS, lambda: self._pool.executor_count > 0),
            # Statements that spill fail on this server but may succeed on a different one.
            (NotReady.DISK, lambda: has_free_space(self._spill_folder.path)),
            (NotReady.STORAGE, self._can_read_storage),
            # It doesn't learn about removed access.
            (NotReady.DENIALS, lambda: self._deny_list is None or self._deny_list.is_current),
            (NotReady.ENGINE, lambda: self._engine is None or self._engine.can_be_reached()),
            # Last, because `/ready?for=reads` still passes.
            (NotReady.LAKE_DISK, lambda: not self._is_lake_full()),
        )
        # The process that stores rows requires features that Windows doesn't have.
        if self.lake is not None and not settings.no_telemetry and sys.platform != "win32":
            self._recorder = Recorder(
                self._server.exports.store_own,
                exe=self._program,
                commit_interval_seconds=settings.telemetry_interval_seconds,
            )
        self._http: HttpEndpoint | None = None
        self._mcp: McpSite | None = None
        self._sql: Site | None = None
        self._http_port: int | None = None
        if not settings.no_http:
            access = () if self.validator is None else (self.validator.metrics.registry,)
            self._mcp = self._build_mcp_site() if is_mcp_served(settings) else None
            self._sql = Site(**self._access_over_http()) if is_sql_served(settings) else None
            self._http = HttpEndpoint(
                settings.http_host,
                settings.http_port,
                validator=self.validator,
                registries=(self.metrics.registry, *access),
                readiness=self.readiness,
                is_alive=self._is_alive,
                exports=None if self.lake is None else self._server.exports,
                mcp=self._mcp,
                sql=self._sql,
                tls_files=_tls_files(settings),
                limits=self._server.limits,
                trusted_proxies=frozenset(settings.trusted_proxy),
                check_caller=self._server.check_caller,
            )

    def _build_mcp_site(self) -> McpSite:
        oidc = None if self.validator is None else self.validator.settings.oidc
        return McpSite(
            version=__version__,
            issuers=() if oidc is None else tuple(issuer.issuer for issuer in oidc.issuers),
            **self._access_over_http(),
        )

    def _access_over_http(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "calls": self._server.http_calls,
            "allowed_origins": frozenset(settings.allowed_origin),
            "is_local": is_loopback(settings.http_host),
            "public_url": settings.public_url,
        }

    def _find_ticket_keys(self) -> tuple[bytes, ...]:
        return (self._ticket_key.encode(),) if self._ticket_keys is None else self._ticket_keys.keys

    def _take_over(self) -> Taken | None:
        """Return the sockets of the server to replace, or None."""
        settings = self.settings
        if not settings.take_over:
            return None
        if not is_take_over_supported() or not settings.port:
            raise ConfigurationError(
                "Taking over a server requires Linux and an explicit port.",
                key="--take-over",
                remedy="Stop the running server first, and omit --take-over.",
            )
        return take_over(find_take_over_address(settings.host, settings.port, self._environ))

    def _release_ports(self) -> None:
        """Leave the ports to a server that continues, if any."""
        if self._port is not None:
            self._port.close()
        if self._taken is not None:
            self._taken.close()

    def _offer_ports(self) -> None:
        """Let a later server take over the ports if it can find this one."""
        if not self._is_replaceable or self._port is None:
            return
        sockets = {_GRPC: self._port.socket}
        if self._http is not None and self._http.listening is not None:
            sockets[_HTTP] = self._http.listening
        try:
            self._listener = TakeOverListener(
                find_take_over_address(self.settings.host, self._port.number, self._environ).path,
                sockets,
                lambda: self.on_taken(),  # noqa: PLW0108 - it is set later
                state={_TICKET_KEY: self._ticket_key},
            )
            self._listener.start()
        except ConfigurationError as error:
            self._listener = None
            _LOG.warning("this server cannot be taken over: %s", error.what)

    def _record_denial(self, rule_id: str) -> None:
        if self._recorder is None:
            return
        row = MeasureRow(
            time_ns=nanoseconds_since_epoch(SYSTEM_CLOCK.now().timestamp()),
            target="micromegas_jupyter.server.deny_list",
            name="query_denied",
            unit="count",
            value=1.0,
            properties={"rule_id": rule_id},
        )
        self._recorder.add_measures([row])

    def _check_role_conditions(self, access: AccessSettings) -> None:
        """Reject roles with conditions that the tables don't support, and warn about missing tables."""
        conditions: dict[str, list[str]] = {}
        for role in (access.roles or {}).values():
            for table, condition in role.tables.items():
                conditions.setdefault(table, []).extend(() if condition is None else (condition,))
        if not any(conditions.values()) and self._are_there(conditions.keys() - {"*"}):
            return
        # Imports the engine, which this process otherwise doesn't need.
        from micromegas_jupyter.engine.security import check_role_conditions

        try:
            check_role_conditions(self._tables, conditions)
        except Unavailable as error:
            # Conditions are checked again when they are used, and then fail closed.
            _LOG.warning("the roles' conditions could not be checked against the tables: %s", error.what)

    def _are_there(self, tables: AbstractSet[str]) -> bool:
        try:
            return tables <= {snapshot.name for snapshot in self._tables.snapshot()}
        except Exception:  # noqa: BLE001 - reported where the conditions are checked
            return False

    def describe_tables(self) -> str:
        """Return a description of the served tables for messages."""
        root = "" if self._storage is None else self._storage.uri
        if self._engine is not None:
            settings = self._engine.engine.settings
            rows = f"rows that are sent here: {root}" if root else "no lake: nothing can be sent here"
            return f"engine: {settings.address.target} ({settings.dialect}) · {rows}"
        if self.lake is not None:
            return f"lake: {root}"
        names = [snapshot.name for snapshot in self._tables.snapshot() if snapshot.problem is None]
        shown = ", ".join("".join(c if c.isprintable() else "?" for c in name) for name in names[:_MAX_SHOWN_TABLES])
        more = f" and {len(names) - _MAX_SHOWN_TABLES} more" if len(names) > _MAX_SHOWN_TABLES else ""
        return f"files in {root}, read only, without telemetry · tables: {shown}{more}"

    @property
    def executor_count(self) -> int:
        """The number of executor processes."""
        return self._pool.executor_count

    @property
    def uri(self) -> str:
        """The running server's address."""
        return self._server.uri

    @property
    def http_url(self) -> str | None:
        """The running server's URL for health and metrics; None without HTTP."""
        return None if self._http_port is None else self.settings.http_url_at(self._http_port)

    def readiness(self) -> NotReady | None:
        """Return why the server isn't ready, or None; may block as long as the storage does."""
        if not self._server.is_serving:
            return NotReady.DRAINING if self._server.has_started else NotReady.STARTING
        return next((reason for reason, is_well in self._readiness_checks if not is_well()), None)

    def _can_read_storage(self) -> bool:
        source = self._tables if self._engine is None else self.lake
        return self._storage is None or source is None or can_read_tables(source, self._storage)

    def _is_alive(self) -> bool:
        """Whether calls are processed at all; if not, only a restart helps."""
        return self._server.loop_watch.lag_seconds <= MAX_ALIVE_LAG_SECONDS

    @property
    def _audit_log(self) -> LogWriter | None:
        """The writer of audit lines, which is the last one."""
        return self._log_writers[-1] if self._log_writers else None

    def _is_lake_full(self) -> bool:
        if self.lake is None or self._storage is None:
            return False
        return self._server.is_storage_full or (self._storage.is_local and not has_free_space(Path(self._storage.uri)))

    def reload(self) -> None:
        """Reload the access configuration; if it is unusable or unreadable, the previous one stays in effect."""
        if self.validator is not None:
            self.validator.reload()

    def check(self) -> None:
        """Check what startup would also check: the certificates, and that the tables can be read."""
        files = _tls_files(self.settings)
        if files is not None:
            from micromegas_jupyter.server.tls import read_tls_files

            read_tls_files(files)
        self._tables.snapshot("")

    def start(self) -> None:
        """Start recording and serving; return when the server is ready."""
        if self.lake is not None and self._storage is not None:
            make_lake(self._storage)
        if self._engine is not None:
            threading.Thread(target=warn_of_open_engine, args=(self._engine,), name="engine-port", daemon=True).start()
        if self._recorder is not None:
            self._recorder.attach()
        if self._ticket_keys is not None:
            self._ticket_keys.start()
        try:
            if self._http is not None and self._taken is None:
                self._start_http(self._http)
            self._server.start()
            if self._recorder is not None:
                self._recorder.start()
            if self._taken is not None:
                if self._http is not None:  # not earlier, because until now the running server responds and is ready
                    self._start_http(self._http, self._taken.sockets.get(_HTTP))
                self._taken.confirm_serving()
                self._taken = None
            # From here on, no other server is serving, so errors below must not stop this one.
            self._offer_ports()
        except BaseException:
            self.stop()
            raise

    def _start_http(self, http: HttpEndpoint, taken: socket.socket | None = None) -> None:
        self._http_port = http.start(taken)
        for site in (self._mcp, self._sql):
            if site is not None:
                site.public_url = site.public_url or self.settings.http_url_at(self._http_port)
        if self._mcp is not None and self.validator is not None:
            self.validator.accept_resource(self._mcp.resource)

    def stop(self, grace_seconds: float | None = None, *, why: str = "") -> None:
        """Drain running calls, flush the recorder, and release everything; safe to call twice.

        Running calls may continue for `grace_seconds`, by default the drain timeout; those that are stopped get `why`.
        """
        if self._listener is not None:
            self._listener.stop()
            if self._listener.is_taken and self._http is not None:
                self._http.stop()  # otherwise, it would respond to the other server's requests as a draining server
        self._server.stop(self.settings.drain_timeout_seconds if grace_seconds is None else grace_seconds, reason=why)
        if self._deny_list is not None:
            _run_in_time(self._deny_list.write_hits, name="denials")
        self._tracing.close()
        self._release_ports()
        if self._ticket_keys is not None:
            self._ticket_keys.stop()
        if self.validator is not None:
            self.validator.close()
        self._spill_folder.close()

    def _end_recording(self) -> None:
        """Store the last recorded rows after the last HTTP exporter has received its response."""
        if self._http is not None:
            self._http.stop()
        if self._recorder is not None and not self._recorder.stop(timeout_seconds=_LAST_WRITE_SECONDS):
            _LOG.warning("the server ends without the last rows of its own telemetry")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def is_mcp_served(settings: ServerSettings) -> bool:
    """Whether the server serves agents."""
    return not settings.no_mcp and _are_calls_served(settings)


def is_sql_served(settings: ServerSettings) -> bool:
    """Whether the server serves queries over HTTP."""
    return not settings.no_sql and _are_calls_served(settings)


def _are_calls_served(settings: ServerSettings) -> bool:
    """Whether HTTP accepts calls: on this machine, or elsewhere with a public URL and authentication."""
    if settings.no_http:
        return False
    return is_loopback(settings.http_host) or bool(settings.public_url and not settings.disable_auth)


def _run_in_time(function: Callable[[], None], *, name: str) -> None:
    """Run a function that uses the storage, waiting a few seconds at most: a server must exit even if storage hangs."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    thread.join(_LAST_WRITE_SECONDS)
    if thread.is_alive():
        _LOG.warning("the lake's storage does not answer, so the server ends without its last rows")


def check_exposure(settings: ServerSettings) -> None:
    """Check that a server that others can reach uses encryption and authentication, or is explicitly `insecure`."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ConfigurationError(
            "TLS requires both a certificate and a key.",
            key="--tls-certificate",
            remedy="Specify --tls-certificate and --tls-key.",
        )
    is_plain = settings.tls_certificate is None
    if settings.tls_client_ca is not None and is_plain:
        raise ConfigurationError(
            "Client certificates require TLS.",
            key="--tls-client-ca",
            remedy="Specify --tls-certificate and --tls-key as well.",
        )
    if settings.insecure:
        return
    if is_plain and not settings.no_http and not is_loopback(settings.http_host):
        raise ConfigurationError(
            f"Metrics tokens would be sent to {settings.http_host} in plain text.",
            key="--http-host",
            remedy=_TLS_REMEDY,
        )
    if is_loopback(settings.host):
        return
    if settings.disable_auth:
        raise ConfigurationError(
            f"--disable-auth would let anyone who can reach {settings.host} read everything.",
            key="--disable-auth",
            remedy="Listen on 127.0.0.1, or add --insecure if this is intended.",
        )
    if is_plain:
        raise ConfigurationError(
            f"Tokens would be sent to {settings.host} in plain text.", key="--host", remedy=_TLS_REMEDY
        )


def _check_unused_access(environ: Mapping[str, str]) -> None:
    """Warn that a configured access configuration is not used; an invalid one is rejected as usual."""
    variables = ("ACCESS_CONFIG", "API_KEY_FILE", "API_KEYS", "OIDC_CONFIG", "ADMINS")
    named = [name for name in (f"MICROMEGAS_{variable}" for variable in variables) if environ.get(name)]
    read_access_settings(environ)
    if named:
        _LOG.warning(
            "The access configuration is not used, because of --disable-auth.", extra={"settings": ", ".join(named)}
        )


def build_worker_options(
    settings: ServerSettings,
    *,
    lake: Storage | None,
    denials_file: str | None,
    spill_folder: Path,
    has_engine: bool = False,
) -> WorkerOptions:
    """Return the options that all executors share."""
    return WorkerOptions(
        lake=None if lake is None else lake.uri,
        uses_bucket=bool(settings.lake) and not Storage(settings.lake).is_local,
        denials_file=denials_file,
        spill_directory=str(spill_folder),
        # Half of the total limit: a statement should spill before the largest one is killed for its memory.
        engine=EngineSettings(
            memory_limit_bytes=min(_MAX_POOL_MIB, settings.statement_memory_mib // 4, settings.memory_mib // 2) * _MIB,
            spill_limit_bytes=settings.spill_mib * _MIB,
            max_statement_bytes=settings.max_statement_bytes,
            default_conditions={} if lake is None and not has_engine else DEFAULT_ROW_FILTERS,
        ),
        data_limit_bytes=settings.statement_memory_mib * _MIB,
        preloaded=_REWRITING if has_engine else None,
    )


def build_pool_settings(settings: ServerSettings, *, spare_executors: int = _DEFAULT_SPARE_EXECUTORS) -> PoolSettings:
    """Return the number of executors and their total limits."""
    return PoolSettings(
        max_executors=settings.max_queries,
        spare_executors=spare_executors if can_fork() else min(spare_executors, _MAX_SPAWNED_IDLE),
        max_per_caller=settings.max_queries_per_caller,
        queue_timeout_seconds=float(settings.queue_timeout_seconds),
        statement_timeout_seconds=float(settings.query_timeout_seconds) or None,
        write_timeout_seconds=float(settings.write_timeout_seconds),
        memory_bytes=settings.memory_mib * _MIB,
        max_ended_per_caller=settings.max_ended_per_caller,
    )


def _tls_files(settings: ServerSettings) -> TlsFiles | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return TlsFiles(
        certificate_file=settings.tls_certificate, key_file=settings.tls_key, client_ca_file=settings.tls_client_ca
    )


def build_flight_settings(
    settings: ServerSettings, *, rate_limits: RateLimits, reserved_port: int | None
) -> FlightServerSettings:
    """Return the Flight server's listening settings and call limits."""
    return FlightServerSettings(
        host=settings.host,
        port=settings.port if reserved_port is None else reserved_port,
        is_port_reserved=reserved_port is not None,
        tls_files=_tls_files(settings),
        trusted_proxies=frozenset(settings.trusted_proxy),
        rate_limits=rate_limits,
        max_rows=settings.max_rows or None,
        max_result_bytes=settings.max_result_mib * _MIB or None,
        max_receive_bytes=settings.max_message_mib * _MIB,
        max_metadata_bytes=settings.max_metadata_kib * 1024,
        max_concurrent_calls=settings.max_calls,
        max_calls_per_caller=settings.max_calls_per_caller,
        read_timeout_seconds=float(settings.read_timeout_seconds),
        write_timeout_seconds=float(settings.write_timeout_seconds),
        ticket_life_seconds=float(settings.ticket_lifetime_seconds),
        connection_idle_seconds=float(settings.connection_idle_timeout_seconds) or None,
        connection_age_seconds=float(settings.max_connection_age_seconds) or None,
        ingest=IngestSettings(
            max_bytes=settings.max_ingest_mib * _MIB,
            max_concurrent=settings.max_ingests,
            max_per_caller=settings.max_ingests_per_caller,
            max_tables_per_caller=settings.max_tables_per_caller,
            idle_seconds=float(settings.read_timeout_seconds),
            max_seconds=float(settings.upload_timeout_seconds),
        ),
    )


def open_tables(location: str) -> tuple[Storage, TableSource]:
    """Return the storage and tables at a location: a `Lake`, even if empty or missing, or other tables (read-only)."""
    try:
        storage = Storage(location)
        if is_lake(storage):
            return storage, Lake(storage)
        folder = ServedFolder(storage)
        tables = [table for table in folder.snapshot() if table.problem is None]
    except UsageError as error:
        raise ConfigurationError(error.what, key="--lake", remedy=error.remedy) from None
    for problem in folder.problems:
        _LOG.warning("%s", problem)
    if not tables:
        found = f" {folder.problems[0]}" if folder.problems else ""
        raise ConfigurationError(
            f"The folder is not empty, but does not contain a readable table.{found}",
            key="--lake",
            remedy="Use a folder of Delta tables, or of Parquet, CSV, JSON lines, or Arrow files. An empty folder "
            "becomes a lake for the server's own telemetry.",
        )
    return storage, folder


def has_free_space(folder: Path) -> bool:
    """Whether files can be written to the folder; may block as long as the storage does."""
    try:
        return shutil.disk_usage(folder).free >= _MIN_FREE_BYTES
    except OSError:
        return False


def open_lake(location: str) -> tuple[Storage | None, Lake | None]:
    """Return the lake at a location, for rows that are stored alongside an engine; None for both without a location."""
    if not location:
        return None, None
    storage, found = open_tables(location)
    if not isinstance(found, Lake):
        raise ConfigurationError(
            "With an engine, --lake is where this server stores the rows that it receives, so it "
            "cannot be a folder of other files.",
            key="--lake",
            remedy="Omit --lake, because the engine has the tables.",
        )
    return storage, found


def can_read_tables(source: TableSource, storage: Storage) -> bool:
    """Whether the tables can be read; may block as long as the storage does."""
    try:
        # A lake whose folder never existed has no rows, but one whose folder disappeared has lost them.
        return (not storage.is_local or Path(storage.uri).is_dir()) and source.snapshot("") is not None
    except MicromegasError:
        return False


def find_denials_file(settings: ServerSettings, lake: Storage | None) -> str | None:
    """Return the configured file of denied queries, or the one in the lake, or None."""
    if settings.query_denials_file is not None:
        return str(settings.query_denials_file.expanduser().absolute())
    return None if lake is None else lake.child_uri(_DENIALS_FILE)


def make_spill_folder(directory: Path | None) -> TemporaryFolder:
    """Return a new folder for one server's spilled data, and remove those of killed servers."""
    parent = None if directory is None else str(directory.expanduser().absolute())
    remove_abandoned(_SPILL_PREFIX, parent=parent)
    try:
        return TemporaryFolder(_SPILL_PREFIX, parent=parent)
    except OSError:
        raise ConfigurationError(
            "The spill directory is not a folder that this server can write to.",
            key="--spill-directory",
            remedy="Create it, and give the server's user write access.",
        ) from None
