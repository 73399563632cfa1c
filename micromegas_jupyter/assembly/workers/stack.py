"""A server of supervised worker processes, with the face of a server in this process (`server_side.ServerStack`)."""

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.assembly.serve_options import ServeOptions, check_exposure
from micromegas_jupyter.assembly.spill_directory import check_spill_directory, remove_spilled_by_the_dead
from micromegas_jupyter.assembly.workers.limits import memory_limits
from micromegas_jupyter.assembly.workers.metrics import WorkerMetrics
from micromegas_jupyter.assembly.workers.order import WorkerOrder, describe_serving
from micromegas_jupyter.assembly.workers.port import ReservedPort
from micromegas_jupyter.assembly.workers.process import PROGRAM
from micromegas_jupyter.assembly.workers.slots import WorkersState
from micromegas_jupyter.assembly.workers.supervisor import Supervisor
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS, process_variables
from micromegas_jupyter.server.http_endpoint import HttpEndpoint
from micromegas_jupyter.server.readiness import NotReady
from micromegas_jupyter.settings import RateLimits, parse_server_limits

if TYPE_CHECKING:
    from micromegas_jupyter.access.reloading import ReloadingValidator
    from micromegas_jupyter.server.recorder import Recorder

_SECRET_BYTES: Final = 32
_RELOAD_SECONDS: Final = 30.0
_ACCESS_LOG: Final = logging.getLogger("micromegas_jupyter.access")


class SupervisedStack:
    """A running server whose calls are answered by worker processes; a context manager that starts and stops them.

    This process answers health and metrics over HTTP. It reads the access configuration, too, for the metrics ask for
    a token; what it finds there the workers tell in their logs.

    Raises:
        ConfigurationError: The options or the environment do not make a server that is safe to run.
    """

    def __init__(
        self, options: ServeOptions, *, environ: Mapping[str, str] | None = None, program: str = PROGRAM
    ) -> None:
        check_exposure(options)
        self.options = options
        variables = process_variables(environ)
        server_limits = parse_server_limits(variables)
        check_spill_directory(server_limits.spill_directory)
        remove_spilled_by_the_dead(server_limits.spill_directory)
        self._port = ReservedPort(options.host, options.port)
        limits = memory_limits(options.memory_mib, options.workers)
        self._supervisor = Supervisor(
            WorkerOrder(
                kind="serve",
                task=describe_serving(options, variables),
                port=self._port.number,
                number=0,
                pool_bytes=limits.pool,
                hard_bytes=limits.hard,
                secret=SYSTEM_RANDOMNESS.token_urlsafe(_SECRET_BYTES),
            ),
            workers=options.workers,
            limits=limits,
            keeps_spare=bool(options.spare_workers),
            max_stuck=server_limits.max_stuck_queries,
            spill_directory=server_limits.spill_directory,
            program=program,
        )
        self._http_port: int | None = None
        self._recorder: Recorder | None = None
        self._has_started = False
        self._http: HttpEndpoint | None = None
        self.validator: ReloadingValidator | None = None
        _ACCESS_LOG.addFilter(_is_error)
        try:
            # They start while this process reads the configuration.
            self._supervisor.spawn()
            self.validator = self._make_validator(variables)
            self._http = self._make_http()
        except BaseException:
            self._supervisor.kill()
            self._release()
            raise

    def _make_validator(self, environ: Mapping[str, str]) -> "ReloadingValidator | None":
        if self.options.disable_auth:
            return None
        return validator_from_environment(environ, legacy_api_keys=self.options.legacy_api_keys)

    def _make_http(self) -> HttpEndpoint | None:
        options = self.options
        if options.http_port is None:
            return None
        own = () if self.validator is None else (self.validator.metrics.registry,)
        return HttpEndpoint(
            options.http_host,
            options.http_port,
            validator=self.validator,
            registries=(WorkerMetrics(self._supervisor, own).registry,),
            readiness=self.readiness,
            tls_files=options.tls_files,
            rate_limits=RateLimits() if self.validator is None else self.validator.settings.rate_limits,
        )

    @property
    def uri(self) -> str:
        """The server's address."""
        return self.options.uri_at(self._port.number)

    @property
    def http_url(self) -> str | None:
        """Where health and metrics are answered, once it runs; None without HTTP."""
        return None if self._http_port is None else self.options.http_url_at(self._http_port)

    def readiness(self) -> NotReady | None:
        """Return why calls make no sense now, None when they do; may block as long as a worker's storage does."""
        state = self._supervisor.state()
        if state.is_stopping:
            return NotReady.DRAINING
        if not self._has_started:
            return NotReady.STARTING
        answers = [answer for _, answer in self._supervisor.ask_all("readiness") if isinstance(answer, dict)]
        reasons = [answer.get("reason") for answer in answers]
        if not reasons:
            return NotReady.WORKERS
        return None if None in reasons else NotReady(str(reasons[0]))

    def workers(self) -> WorkersState:
        """Tell how the workers are; returns at once."""
        return self._supervisor.state()

    def described_tables(self) -> str:
        """Return what is served, for people; once it runs."""
        return str(self._supervisor.facts().get("described", ""))

    def reload(self) -> None:
        """Have this process and all workers read the access configuration again.

        Raises:
            ConfigurationError: It cannot be used.
            Unavailable: It could not be read now.
        """
        answers = self._supervisor.ask_all("reload", timeout_seconds=_RELOAD_SECONDS)
        if self.validator is not None:
            self.validator.reload()
        for _, answer in answers:
            if isinstance(answer, MicromegasError):
                raise answer

    def start(self) -> None:
        """Wait until all workers answer, then answer over HTTP.

        Raises:
            MicromegasError: What kept a worker from starting.
        """
        try:
            if self._http is not None:
                self._http_port = self._http.start()
            self._supervisor.start()
            self._has_started = True
            self._record()
        except BaseException:
            self.kill()
            self._release()
            raise

    def _record(self) -> None:
        """Record this process, too, where the workers record themselves: it knows why one was replaced."""
        if not self.options.record or not self._supervisor.facts().get("is_recorded"):
            return
        from micromegas_jupyter.lakehouse import Lake
        from micromegas_jupyter.server.recorder import Recorder

        properties = {**self.options.properties, "worker": "supervisor"}
        self._recorder = Recorder(Lake(self.options.lake), exe=self.options.program, properties=properties)
        self._recorder.start()

    def stop(self) -> None:
        """Let running calls end within the drain time, then release everything; safe to call twice."""
        self._supervisor.stop(self.options.drain_seconds)
        self._release()

    def kill(self) -> None:
        """End all workers at once; a signal handler may call it."""
        self._supervisor.kill()

    def _release(self) -> None:
        if self._http is not None:
            self._http.stop()
        if self.validator is not None:
            self.validator.close()
        if self._recorder is not None:
            self._recorder.stop()
        self._port.close()
        _ACCESS_LOG.removeFilter(_is_error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
