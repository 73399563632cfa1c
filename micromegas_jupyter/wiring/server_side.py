"""Joins validator, executors, lake, recorder and Flight service into a server that runs."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.config.access import AccessSettings, RateLimits
from micromegas_jupyter.config.server_limits import ServerLimits, parse_server_limits
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, process_variables
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.executors.launcher import open_launcher
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.lake import Lake, make_lake_folder
from micromegas_jupyter.server import HttpEndpoint, NotReady, Recorder, ServerMetrics, ServerThread
from micromegas_jupyter.server.tracing import open_tracing
from micromegas_jupyter.wiring.denials import find_denials_file, open_deny_list
from micromegas_jupyter.wiring.port import ReservedPort, is_port_shareable
from micromegas_jupyter.wiring.serve_options import ServeOptions, check_exposure
from micromegas_jupyter.wiring.served_tables import describe_tables, open_tables
from micromegas_jupyter.wiring.server_limits import build_flight_settings, build_pool_settings, build_worker_options
from micromegas_jupyter.wiring.server_readiness import find_readiness
from micromegas_jupyter.wiring.spill_directory import (
    check_spill_directory,
    make_process_folder,
    remove_spilled_by_the_dead,
    unusable_spill_directory,
)
from micromegas_jupyter.wiring.take_over import (
    Taken,
    TakeOverListener,
    find_take_over_key,
    is_take_over_supported,
    take_over,
)
from micromegas_jupyter.wiring.unused_access import check_unused_access

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from micromegas_jupyter.access.reloading import ReloadingValidator

# These loggers tell what other people asked; a server records its own logs in the lake that it serves.
_LOGGERS_OF_OTHERS = ("access", "audit", "engine", "executors", "server")
OTHER_PEOPLES_ROWS = {
    "log_entries": "target IS NULL OR NOT ("
    + " OR ".join(
        f"target = 'micromegas_jupyter.{name}' OR target LIKE 'micromegas_jupyter.{name}.%'"
        for name in (*_LOGGERS_OF_OTHERS, "supervisor")  # which versions before had
    )
    + ")"
}

_GRPC: Final = "grpc"
_HTTP: Final = "http"
_TICKET_KEY: Final = "ticket_key"
_TICKET_KEY_BYTES: Final = 32
_LOG: Final = logging.getLogger("micromegas_jupyter.server")


class ServerStack:
    """A running server with its executors, lake and recorder; a context manager that starts and stops them.

    Raises:
        ConfigurationError: The options or the environment do not make a server that is safe to run.
    """

    def __init__(self, options: ServeOptions, *, environ: Mapping[str, str] | None = None) -> None:
        check_exposure(options)
        variables = process_variables(environ)
        if options.disable_auth:
            check_unused_access(variables)
        self.options = options
        limits = parse_server_limits(variables)
        check_spill_directory(limits.spill_directory)
        self._tables = open_tables(options.lake)
        self.lake = self._tables.lake
        self._recorder: Recorder | None = None
        denials_file = find_denials_file(variables, lake=None if self.lake is None else options.lake)
        self._deny_list = open_deny_list(denials_file, recorder=lambda: self._recorder)
        self._environ = variables
        self._taken = self._take_over()
        sockets = {} if self._taken is None else self._taken.sockets
        ticket_key = None if self._taken is None else self._taken.state.get(_TICKET_KEY)
        self._ticket_key = ticket_key or SYSTEM_RANDOMNESS.token_urlsafe(_TICKET_KEY_BYTES)
        self._port = None
        if is_port_shareable():
            self._port = ReservedPort(options.host, options.port, taken=sockets.get(_GRPC))
        self._listener: TakeOverListener | None = None
        #: Called on another thread when a later server has taken the ports over; this one is to stop then.
        self.on_taken: Callable[[], None] = lambda: None
        try:
            self._build(limits, variables, denials_file)
        except BaseException:
            self._give_up()
            raise

    def _build(self, limits: ServerLimits, variables: Mapping[str, str], denials_file: Path | None) -> None:
        options = self.options
        remove_spilled_by_the_dead(limits.spill_directory)
        try:
            self._spill_folder = make_process_folder(limits.spill_directory)
        except OSError:
            raise unusable_spill_directory() from None
        worker_options = build_worker_options(
            limits,
            memory_mib=options.memory_mib,
            lake=None if self.lake is None else options.lake,
            denials_file=denials_file,
            spill_directory=self._spill_folder.path,
            default_conditions={} if self.lake is None else OTHER_PEOPLES_ROWS,
        )
        # The process that executors are forked from starts while this one reads the configuration.
        launcher = open_launcher(worker_options)
        try:
            self.validator: ReloadingValidator | None = self._make_validator(variables)
        except BaseException:
            launcher.abandon()
            self._spill_folder.close()
            raise
        if options.record and self.lake is not None:
            self._recorder = Recorder(self.lake, exe=options.program, properties=options.properties)
        self.metrics = ServerMetrics()
        rate_limits = RateLimits() if self.validator is None else self.validator.settings.rate_limits
        self._tracing = open_tracing(variables)
        self._pool = Pool(
            launcher,
            self._tables.source,
            settings=build_pool_settings(limits, options),
            options=worker_options,
            on_denials_changed=self._reload_denials,
        )
        self._server = ServerThread(
            pool=self._pool,
            validator=self.validator,
            settings=build_flight_settings(
                limits,
                options,
                rate_limits=rate_limits,
                port=options.port if self._port is None else self._port.number,
                is_port_reserved=self._port is not None,
            ),
            metrics=self.metrics,
            deny_list=self._deny_list,
            ticket_key=self._ticket_key.encode(),
            tracing=self._tracing,
        )
        self._http = self._make_http(rate_limits)
        self._http_port: int | None = None

    def _take_over(self) -> Taken | None:
        """Return the sockets of the server that is to be replaced; None when there is none.

        Raises:
            ConfigurationError: This system, or the port 0, has no take-over, or what answers there is not safe.
            ServerUnavailable: The running server does not hand its sockets over now.
        """
        options = self.options
        if not options.take_over:
            return None
        if not is_take_over_supported() or not options.port:
            raise ConfigurationError(
                "A server can be taken over on Linux only, and on a port that is given.",
                key="--take-over",
                remedy="Stop the running server first, and leave --take-over out.",
            )
        return take_over(find_take_over_key(options.host, options.port, self._environ))

    def _give_up(self) -> None:
        """Leave the ports to whom they belong."""
        if self._port is not None:
            self._port.close()
        if self._taken is not None:
            self._taken.close()

    def _offer_ports(self) -> None:
        """Let a later server take the ports over, where it can find this one."""
        if not (self.options.hands_over and is_take_over_supported() and self._port is not None):
            return
        sockets = {_GRPC: self._port.socket}
        if self._http is not None and self._http.listening is not None:
            sockets[_HTTP] = self._http.listening
        try:
            self._listener = TakeOverListener(
                find_take_over_key(self.options.host, self._port.number, self._environ),
                sockets,
                lambda: self.on_taken(),  # noqa: PLW0108 - it is set later
                state={_TICKET_KEY: self._ticket_key},
            )
            self._listener.start()
        except ConfigurationError as error:
            self._listener = None
            _LOG.warning("this server cannot be taken over: %s", error.what)

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

    def _reload_denials(self) -> None:
        if self._deny_list is not None:
            self._deny_list.reload()

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
        if not conditions:
            return
        # Loads the engine, which this process needs for nothing else.
        from micromegas_jupyter.engine.security.conditions import check_role_conditions

        try:
            check_role_conditions(self._tables.source, conditions)
        except Unavailable as error:
            # Each condition is checked again when it is used, and then fails closed.
            _LOG.warning("the roles' conditions could not be held against the tables: %s", error.what)

    def described_tables(self) -> str:
        """Return what is served, for people."""
        return describe_tables(self._tables, self.options.lake)

    @property
    def executor_count(self) -> int:
        """How many executor processes there are."""
        return self._pool.executor_count

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
        if self._server.is_serving and not self._pool.executor_count:
            return NotReady.EXECUTORS
        return find_readiness(self._tables.source, Path(self.options.lake), server=self._server)

    def reload(self) -> None:
        """Read the access configuration again.

        Raises:
            ConfigurationError: It cannot be used; the one before stays.
            Unavailable: It could not be read now.
        """
        if self.validator is not None:
            self.validator.reload()

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
            self._remove_stale_files(self.lake)
        try:
            if self._http is not None and self._taken is None:
                self._http_port = self._http.start()
            self._server.start()
            if self._taken is not None:
                if self._http is not None:  # only now: the running server answers meanwhile, and is ready
                    self._http_port = self._http.start(self._taken.sockets.get(_HTTP))
                self._taken.confirm_serving()
                self._taken = None
            # From here on nobody else serves, so nothing that follows may end this server.
            self._offer_ports()
        except BaseException:
            self.stop()
            raise

    def _remove_stale_files(self, lake: Lake) -> None:
        """Remove unfinished files of processes that were killed; where a recorder runs, it does so all the time."""
        try:
            lake.remove_stale_files()
        except Unavailable as error:
            _LOG.warning("unfinished files of killed processes could not be removed: %s", error.what)

    def stop(self, grace_seconds: float | None = None, *, why: str = "") -> None:
        """Drain running calls, flush the recorder, release everything; safe to call twice.

        Args:
            grace_seconds: How long running calls may go on; the options' drain time when left out.
            why: What calls that are ended are told; empty for a server that stops.
        """
        if self._listener is not None:
            self._listener.stop()
            if self._listener.is_taken and self._http is not None:
                self._http.stop()  # or it would answer some requests to the other server, as one that drains
        self._server.stop(self.options.drain_seconds if grace_seconds is None else grace_seconds, why=why)
        if self._http is not None:
            self._http.stop()
        if self._deny_list is not None:
            self._deny_list.write_hits()
        if self._recorder is not None:
            self._recorder.stop()
        self._tracing.close()
        self._give_up()
        if self.validator is not None:
            self.validator.close()
        self._spill_folder.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
