"""Joins validator, engine, lake, recorder and Flight service into a server that runs."""

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.assembly.denials import open_deny_list
from micromegas_jupyter.assembly.serve_options import ServeOptions, check_exposure
from micromegas_jupyter.assembly.served_tables import describe_tables, open_tables
from micromegas_jupyter.assembly.server_limits import (
    limit_engine,
    limit_flight,
    medium_queries_of,
    partitions_of,
    read_server_limits,
    share_processors,
)
from micromegas_jupyter.assembly.server_readiness import find_readiness
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lakehouse import Lake, make_lake_folder
from micromegas_jupyter.seams import SYSTEM_CLOCK, process_variables
from micromegas_jupyter.server import (
    FlightServerSettings,
    HttpEndpoint,
    NotReady,
    Recorder,
    ServerMetrics,
    ServerThread,
)
from micromegas_jupyter.server.tracing import open_tracing
from micromegas_jupyter.settings import AccessSettings, RateLimits

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from micromegas_jupyter.access.reloading import ReloadingValidator
    from micromegas_jupyter.engine.leftovers import LeftoverEvents
    from micromegas_jupyter.engine.owner import QueryOwner
    from micromegas_jupyter.server.neighbours import Neighbours
    from micromegas_jupyter.server.running_queries import CancelStatus

# These loggers tell what other people asked; a server records its own logs in the lake that it serves.
_LOGGERS_OF_OTHERS = ("access", "audit", "engine", "server", "supervisor")
OTHER_PEOPLES_ROWS = {
    "log_entries": "target IS NULL OR NOT ("
    + " OR ".join(
        f"target = 'micromegas_jupyter.{name}' OR target LIKE 'micromegas_jupyter.{name}.%'"
        for name in _LOGGERS_OF_OTHERS
    )
    + ")"
}

_LOG = logging.getLogger("micromegas_jupyter.server")


class ServerStack:
    """A running server with its engine, lake and recorder; a context manager that starts and stops them.

    Raises:
        ConfigurationError: The options or the environment do not make a server that is safe to run.
    """

    def __init__(
        self,
        options: ServeOptions,
        *,
        environ: Mapping[str, str] | None = None,
        neighbours: "Neighbours | None" = None,
        leftover_events: "LeftoverEvents | None" = None,
    ) -> None:
        check_exposure(options)
        self.options = options
        workers = 1 if neighbours is None else options.workers
        server_limits = share_processors(read_server_limits(process_variables(environ)), workers)
        self._tables = open_tables(options.lake)
        self.lake = self._tables.lake
        self._recorder: Recorder | None = None
        self._deny_list = open_deny_list(
            process_variables(environ),
            lake=None if self.lake is None else options.lake,
            recorder=lambda: self._recorder,
        )
        self._engine = DataFusionEngine(
            self._tables.source,
            limit_engine(
                EngineSettings(
                    memory_limit_bytes=options.memory_mib * 1024 * 1024,
                    target_partitions=partitions_of(workers),
                    default_conditions={} if self.lake is None else dict(OTHER_PEOPLES_ROWS),
                ),
                server_limits,
            ),
            denials=self._deny_list,
            leftover_events=leftover_events,
        )
        try:
            self.validator: ReloadingValidator | None = self._make_validator(process_variables(environ))
        except BaseException:
            self._engine.close()
            raise
        self.record_as({})
        self.metrics = ServerMetrics()
        limits = RateLimits() if self.validator is None else self.validator.settings.rate_limits
        self._tracing = open_tracing(process_variables(environ))
        self._server = ServerThread(
            engine=self._engine,
            validator=self.validator,
            settings=limit_flight(
                FlightServerSettings(
                    host=options.host,
                    port=options.port,
                    certificate_file=options.certificate_file,
                    key_file=options.key_file,
                    client_ca_file=options.client_ca_file,
                    trusted_proxies=options.trusted_proxies,
                    rate_limits=limits,
                    share_port=neighbours is not None,
                    max_medium_queries=medium_queries_of(workers),
                ),
                server_limits,
            ),
            clock=SYSTEM_CLOCK,
            metrics=self.metrics,
            sink=None if self.lake is None else self.lake.sink(),
            deny_list=self._deny_list,
            neighbours=neighbours,
            tracing=self._tracing,
        )
        self._http = self._make_http(limits)
        self._http_port: int | None = None

    def record_as(self, properties: Mapping[str, str]) -> None:
        """Record this process, where it is recorded, with these properties besides its own; before `start`."""
        if self.options.record and self.lake is not None:
            merged = {**self.options.properties, **properties}
            self._recorder = Recorder(self.lake, exe=self.options.program, clock=SYSTEM_CLOCK, properties=merged)

    def _make_validator(self, environ: Mapping[str, str]) -> "ReloadingValidator | None":
        if self.options.disable_auth:
            return None
        return validator_from_environment(
            environ, legacy_api_keys=self.options.legacy_api_keys, check=self._check_conditions
        )

    def _make_http(self, limits: RateLimits) -> HttpEndpoint | None:
        options = self.options
        if options.http_port is None:
            return None
        return HttpEndpoint(
            options.http_host,
            options.http_port,
            validator=self.validator,
            registries=self.registries,
            readiness=self.readiness,
            tls_files=options.tls_files,
            rate_limits=limits,
        )

    def _check_conditions(self, settings: AccessSettings) -> None:
        """Refuse roles whose conditions the tables do not have.

        Raises:
            ConfigurationError: They do not.
        """
        conditions: dict[str, list[str]] = {}
        for role in (settings.roles or {}).values():
            for table, condition in role.tables.items():
                if condition is not None:
                    conditions.setdefault(table, []).append(condition)
        try:
            self._engine.check_conditions(conditions)
        except Unavailable as error:
            # Each condition is checked again when it is used, and then fails closed.
            _LOG.warning("the roles' conditions could not be held against the tables: %s", error.what)

    def described_tables(self) -> str:
        """Return what is served, for people."""
        return describe_tables(self._tables, self.options.lake)

    @property
    def is_recorded(self) -> bool:
        """Whether it writes its own logs and measurements into the lake."""
        return self._recorder is not None

    @property
    def registries(self) -> "tuple[CollectorRegistry, ...]":
        """What this server counts."""
        access = () if self.validator is None else (self.validator.metrics.registry,)
        return (self.metrics.registry, *access)

    @property
    def uri(self) -> str:
        """The server's address, once it runs."""
        return self._server.uri

    @property
    def http_url(self) -> str | None:
        """Where health and metrics are answered, once it runs; None without HTTP."""
        return None if self._http_port is None else self.options.http_url_at(self._http_port)

    def readiness(self) -> NotReady | None:
        """Return why calls make no sense now, None when they do; may block as long as the storage does."""
        return find_readiness(self._tables.source, self.options.lake, server=self._server)

    def reload(self) -> None:
        """Read the access configuration again.

        Raises:
            ConfigurationError: It cannot be used; the one before stays.
            Unavailable: It could not be read now.
        """
        if self.validator is not None:
            self.validator.reload()

    def kill(self) -> None:
        """Nothing ends at once but by ending this process, which is its owner's decision."""

    def start(self) -> None:
        """Start recording and serving; returns when the server answers.

        Raises:
            ConfigurationError: The address is taken or the certificate cannot be used.
            Unavailable: The folder of the tables cannot be made.
        """
        if self.lake is not None:
            make_lake_folder(self.options.lake)
        if self._recorder is not None:
            self._recorder.start()
        elif self.lake is not None:
            self._remove_leftovers(self.lake)
        try:
            if self._http is not None:
                self._http_port = self._http.start()
            self._server.start()
        except BaseException:
            self.stop()
            raise

    def _remove_leftovers(self, lake: Lake) -> None:
        """Remove unfinished files of processes that were killed; where a recorder runs, it does so all the time."""
        try:
            lake.remove_leftovers()
        except Unavailable as error:
            _LOG.warning("unfinished files of killed processes could not be removed: %s", error.what)

    def cancel_query(self, key: bytes) -> "CancelStatus":
        """Cancel a query of this process by its key, for another process on the same port."""
        return self._server.cancel_query(key)

    def running_queries(self) -> "Sequence[QueryOwner]":
        """Return the queries that run in this process, as far as it is known whose they are."""
        return self._engine.running_queries()

    def has_turned(self) -> bool:
        """Whether the server's event loop has turned since the last call."""
        return self._server.has_turned()

    def stop(self, grace_seconds: float | None = None, *, why: str = "") -> None:
        """Drain running calls, flush the recorder, release everything; safe to call twice.

        Args:
            grace_seconds: How long running calls may go on; the options' drain time when left out.
            why: What calls that are ended are told; empty for a server that stops.
        """
        self._server.stop(self.options.drain_seconds if grace_seconds is None else grace_seconds, why=why)
        if self._http is not None:
            self._http.stop()
        if self._deny_list is not None:
            self._deny_list.write_hits()
        if self._recorder is not None:
            self._recorder.stop()
        self._tracing.close()
        self._engine.close()
        if self.validator is not None:
            self.validator.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
